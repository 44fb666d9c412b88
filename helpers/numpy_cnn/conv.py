"""Convolution as matrix products over small, reused blocks.

The textbook way (``stages.convolve_im2col``) writes the windows of a whole batch side by side, 9 times the data of the
batch for a 3x3 kernel, and then multiplies once. Moving that much memory takes about as long as the arithmetic (R3's
second layer, one thread: 10 ms and 11 ms). Here the same happens for a few images at a time, in one block of memory
that stays in the processor's cache, and is used again at once; what backward needs of it, it makes again.
"""

from collections.abc import Iterator

import numpy as np

from helpers.numpy_cnn.layers import Layer, initial_weights, total
from helpers.numpy_cnn.threads import over_images, scratch

# A block's windows should stay in what one core has of the second- and third-level caches.
BLOCK_BYTES = 2 << 20

Pair = tuple[int, int]


def pair(value: int | Pair, what: str, least: int = 0) -> Pair:
    """Return ``value`` as (vertical, horizontal), for arguments that may be one number for both."""
    both = (value, value) if isinstance(value, int) else tuple(value)
    if len(both) != 2 or min(both) < least:
        raise ValueError(f"{what} wants one or two whole numbers of at least {least}, got {value!r}")
    return both


def output_size(size: Pair, kernel: Pair, stride: Pair, padding: Pair) -> Pair:
    """Return how many windows fit below one another and side by side: ⌊(size + 2 padding - kernel) / stride⌋ + 1."""
    height, width = ((n + 2 * p - k) // s + 1 for n, k, s, p in zip(size, kernel, stride, padding, strict=True))
    return height, width


def windows(images: np.ndarray, kernel: Pair, stride: Pair = (1, 1)) -> np.ndarray:
    """Return every window of every image, (N, H', W', kh, kw, C), as a view: nothing is copied.

    ``images`` is (N, H, W, C), already padded. Entry [n, i, j, r, c] is pixel [n, i·sh + r, j·sw + c].
    """
    # sliding_window_view puts the window's two axes last: (N, H', W', C, kh, kw)
    view = np.lib.stride_tricks.sliding_window_view(images, kernel, axis=(1, 2))
    return view[:, :: stride[0], :: stride[1]].transpose(0, 1, 2, 4, 5, 3)


class Conv2d(Layer):
    """y[n,i,j,o] = b[o] + Σ_{r,c,k} x[n, i·s + r - p, j·s + c - p, k] W[r,c,k,o], where x is 0 outside the image.

    W has the shape (kh, kw, in, out): read as a (kh·kw·in, out) matrix, its rows are in the order of a
    window's numbers, so each output pixel is its window (a row) times W.
    """

    label = "conv"
    options = ("inputs", "outputs", "kernel", "stride", "padding")
    needs_output = False

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int | Pair,
        *,
        stride: int | Pair = 1,
        padding: int | Pair = 0,
        init: str = "he",
    ) -> None:
        """Take the numbers of input and output channels, and kernel, stride and padding: one number, or (vertical,
        horizontal). ``init`` is "he" or "xavier".
        """
        super().__init__()
        self.inputs, self.outputs, self.init = inputs, outputs, init
        self.kernel = pair(kernel, "Conv2d's kernel", least=1)
        self.stride = pair(stride, "Conv2d's stride", least=1)
        self.padding = pair(padding, "Conv2d's padding")
        self.initialise(np.random.default_rng(0))

    def initialise(self, generator: np.random.Generator, dtype: np.dtype = np.float32) -> "Conv2d":
        """Return the layer itself with new weights (``init``) and zero biases."""
        shape = (*self.kernel, self.inputs, self.outputs)
        area = self.kernel[0] * self.kernel[1]
        weight = initial_weights(generator, shape, area * self.inputs, area * self.outputs, self.init)
        self.parameters = {"weight": weight.astype(dtype), "bias": np.zeros(self.outputs, dtype)}
        return self

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return (H', W', out)."""
        if len(shape) != 3 or shape[2] != self.inputs:
            raise self.wants(shape, f"(N, H, W, {self.inputs}): channels last, {self.inputs} of them")
        size = output_size(shape[:2], self.kernel, self.stride, self.padding)
        if min(size) < 1:
            kh, kw = self.kernel
            raise self.wants(shape, f"images of at least {kh}x{kw} pixels with their padding {self.padding}")
        return (*size, self.outputs)

    def forward(self, x: np.ndarray) -> np.ndarray:
        """Return the convolution of x: (N, H, W, in) -> (N, H', W', out)."""
        shape = self.check(x)
        self.x, self.y = x, self.buffer("y", shape, x.dtype)
        weight = self.parameters["weight"].reshape(-1, self.outputs)  # (kh·kw·in, out)

        def convolve(share: slice) -> None:
            unroll = self._windows_of_x(share)
            for block in unroll.blocks(share):
                y = self.y[block]
                np.matmul(unroll(x[block]), weight, out=y.reshape(-1, self.outputs))
                y += self.parameters["bias"]

        over_images(convolve, len(x))
        return self.y

    def backward(self, dy: np.ndarray) -> np.ndarray | None:
        """Return dL/dx and fill dL/dW and dL/db.

        Pixel x[i] has a part in output y[(i + p - r) / s], with weight W[r], for every r where that is whole. So
        dx[i] = Σ_r dy[(i + p - r) / s] W[r]': a convolution too, of dy with the kernel turned by 180° and its two
        channel axes swapped. And dW[r] = Σ_i x[i]' dy[(i + p - r) / s] needs the very same windows of dy, so one
        unrolled block serves both products. A first layer needs no dx; the windows of x are then the cheaper ones.
        """
        self.check_gradient(dy, self.y.shape)
        if not self.needs_input_gradient:
            self._add_up(over_images(lambda share: self._weight_gradient(share, dy), len(dy)))
            return None
        dx = self.buffer("dx", self.x.shape, dy.dtype)
        turned = self.parameters["weight"][::-1, ::-1].transpose(0, 1, 3, 2)  # (kh, kw, out, in)
        turned = turned.reshape(-1, self.inputs)  # (kh·kw·out, in)
        self._add_up(over_images(lambda share: self._both_gradients(share, dy, turned, dx), len(dy)))
        # (in, kh·kw·out) -> (kh, kw, in, out), and turned back by 180°
        weight = self.gradients["weight"].reshape(self.inputs, *self.kernel, self.outputs)
        self.gradients["weight"] = np.ascontiguousarray(weight[:, ::-1, ::-1].transpose(1, 2, 0, 3))
        return dx

    def _weight_gradient(self, share: slice, dy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return one share's part of dW = columns(x)' dy and of db = Σ dy."""
        weight, bias = np.zeros_like(self.parameters["weight"]), np.zeros_like(self.parameters["bias"])
        weight = weight.reshape(-1, self.outputs)  # (kh·kw·in, out)
        product = scratch("product", weight.shape, dy.dtype)
        unroll = self._windows_of_x(share)
        for block in unroll.blocks(share):
            rows = dy[block].reshape(-1, self.outputs)  # (n·H'·W', out)
            weight += np.matmul(unroll(self.x[block]).T, rows, out=product)  # (kh·kw·in, n·H'·W') @ (n·H'·W', out)
            bias += total(rows)
        return weight.reshape(self.parameters["weight"].shape), bias

    def _both_gradients(
        self, share: slice, dy: np.ndarray, turned: np.ndarray, dx: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return one share's part of dW, as (in, kh·kw·out), still turned, and of db, and write its part of dx."""
        weight, bias = np.zeros(turned.T.shape, dy.dtype), np.zeros_like(self.parameters["bias"])
        product = scratch("product", weight.shape, dy.dtype)
        unroll = self._windows_of_dy(share, dy)
        for block in unroll.blocks(share):
            columns = unroll(dy[block])  # (n·H·W, kh·kw·out): a window for each pixel of x
            np.matmul(columns, turned, out=dx[block].reshape(-1, self.inputs))
            rows = self.x[block].reshape(-1, self.inputs)  # (n·H·W, in)
            weight += np.matmul(rows.T, columns, out=product)  # (in, n·H·W) @ (n·H·W, kh·kw·out)
            bias += total(dy[block])
        return weight, bias

    def _add_up(self, parts: list[tuple[np.ndarray, np.ndarray]]) -> None:
        """Make the gradients the sums of what the shares found, in their order."""
        weights, biases = zip(*parts, strict=True)
        self.gradients = {"weight": sum(weights[1:], weights[0]), "bias": sum(biases[1:], biases[0])}

    def _windows_of_x(self, share: slice) -> "Unroll":
        """Return what unrolls x: a row of kh·kw·in numbers for each output pixel."""
        height, width = self.x.shape[1:3]
        top, left = self.padding
        canvas = (height + 2 * top, width + 2 * left)
        place = (slice(top, top + height), slice(left, left + width))
        return Unroll(self.x[share], canvas, place, self.kernel, self.stride)

    def _windows_of_dy(self, share: slice, dy: np.ndarray) -> "Unroll":
        """Return what unrolls dy: a row of kh·kw·out numbers for each pixel of x.

        Window i reaches over all outputs that x[i] has a part in, if dy is set k - 1 - p into the zeros, with
        s - 1 zeros between neighbours. More padding than that (p > k - 1) made outputs that saw only zeros; they are
        set in a margin that no window reaches.
        """
        canvas, place, view = [], [], []
        for size, count, k, s, p in zip(
            self.x.shape[1:3], dy.shape[1:3], self.kernel, self.stride, self.padding, strict=True
        ):
            margin = max(0, p - (k - 1))
            start = max(0, (k - 1) - p)
            canvas.append(size + k - 1 + 2 * margin)
            place.append(slice(start, start + s * (count - 1) + 1, s))
            view.append(slice(margin, margin + size + k - 1))
        return Unroll(dy[share], tuple(canvas), tuple(place), self.kernel, (1, 1), tuple(view))


class Unroll:
    """Makes the windows of images into the rows of a matrix (im2col), a few images at a time, in reused memory.

    Each image is set on a ``canvas`` of zeros at ``place``, which pads it, and the windows are taken from the
    canvas's ``view``. A block has as many images as have their windows in ``BLOCK_BYTES``, at least one.
    """

    def __init__(
        self,
        images: np.ndarray,
        canvas: Pair,
        place: tuple[slice, slice],
        kernel: Pair,
        stride: Pair,
        view: tuple[slice, slice] = (slice(None), slice(None)),
    ) -> None:
        """Lay out the memory for blocks of ``images`` (n, H, W, C)."""
        count, *_, channels = images.shape
        height, width = output_size(canvas, kernel, stride, (0, 0))
        self.row = kernel[0] * kernel[1] * channels
        self.count = min(count, max(1, BLOCK_BYTES // (height * width * self.row * images.itemsize)))
        padded = scratch("padded", (self.count, *canvas, channels), images.dtype)
        padded[:] = 0
        self.inner = padded[:, place[0], place[1]]
        self.windows = windows(padded[:, view[0], view[1]], kernel, stride)  # (n, H', W', kh, kw, C), a view
        self.columns = scratch("columns", self.windows.shape, images.dtype)

    def blocks(self, share: slice) -> Iterator[slice]:
        """Yield the blocks of a share, as slices of the batch."""
        for start in range(share.start, share.stop, self.count):
            yield slice(start, min(start + self.count, share.stop))

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Return the windows of a block of images as rows (n·H'·W', kh·kw·C), good until the next call."""
        n = len(images)
        self.inner[:n] = images
        np.copyto(self.columns[:n], self.windows[:n])  # window row by window row, each one piece of kw·C numbers
        return self.columns[:n].reshape(-1, self.row)
