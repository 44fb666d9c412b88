"""Convolution in three stages, from the definition to one matrix product: what the lesson climbs.

All three return the same numbers as ``conv.Conv2d``, which is the fourth. Images are (N, H, W, C), weights
(kh, kw, C, out).
"""

import numpy as np

from helpers.numpy_cnn.conv import Conv2d, windows


def convolve_loops(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, stride: int = 1) -> np.ndarray:
    """Return the convolution by its definition: a loop over images, outputs and places, a sum over each window."""
    images, height, width, _ = x.shape
    kh, kw, _, outputs = weight.shape
    y = np.zeros((images, (height - kh) // stride + 1, (width - kw) // stride + 1, outputs), x.dtype)
    for n, i, j, o in np.ndindex(y.shape):
        top, left = i * stride, j * stride
        window = x[n, top : top + kh, left : left + kw]  # (kh, kw, C)
        y[n, i, j, o] = np.sum(window * weight[..., o]) + bias[o]
    return y


def convolve_windows(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, stride: int = 1) -> np.ndarray:
    """Return the convolution as one sum over a view of all windows at once."""
    view = windows(x, weight.shape[:2], (stride, stride))  # (N, H', W', kh, kw, C)
    return np.einsum("nijrck,rcko->nijo", view, weight) + bias


def convolve_im2col(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, stride: int = 1) -> np.ndarray:
    """Return the convolution as one matrix product: every window copied out as a row, times the weights."""
    view = windows(x, weight.shape[:2], (stride, stride))  # (N, H', W', kh, kw, C)
    columns = view.reshape(-1, weight[..., 0].size)  # (N·H'·W', kh·kw·C): here the copy is made
    y = columns @ weight.reshape(-1, weight.shape[3]) + bias  # (N·H'·W', out)
    return y.reshape(*view.shape[:3], -1)


class LoopConv2d(Conv2d):
    """A convolution layer as one first writes it: four loops forward, and the same four backward.

    It is the yardstick of the benchmark, and readable enough to check the fast layer by eye.
    """

    def forward(self, x: np.ndarray) -> np.ndarray:
        """Return the convolution of x, window by window."""
        self.check(x)
        (top, left), self.x_shape = self.padding, x.shape
        self.padded = np.pad(x, ((0, 0), (top, top), (left, left), (0, 0)))
        return convolve_loops(self.padded, self.parameters["weight"], self.parameters["bias"], self.stride[0])

    def backward(self, dy: np.ndarray) -> np.ndarray:
        """Return dx: each output's gradient goes to the window it came from, times the weights it came by."""
        (kh, kw), stride, weight = self.kernel, self.stride[0], self.parameters["weight"]
        dpadded, dweight = np.zeros_like(self.padded), np.zeros_like(weight)
        for n, i, j, o in np.ndindex(dy.shape):
            rows, columns = (slice(i * stride, i * stride + kh), slice(j * stride, j * stride + kw))
            dweight[..., o] += dy[n, i, j, o] * self.padded[n, rows, columns]
            dpadded[n, rows, columns] += dy[n, i, j, o] * weight[..., o]
        self.gradients = {"weight": dweight, "bias": dy.sum(axis=(0, 1, 2))}
        top, left = self.padding
        return dpadded[:, top : top + self.x_shape[1], left : left + self.x_shape[2]]
