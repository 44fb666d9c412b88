"""Layers that look through windows: convolution as matrix products over small, reused blocks, and pooling.

The textbook way (im2col) writes the windows of a whole batch side by side, 9 times the data of the
batch for a 3x3 kernel, and then multiplies once. Moving that much memory takes about as long as the arithmetic (R3's
second layer, one thread: 10 ms and 11 ms). Here the same happens for a few images at a time, in one block of memory
that stays in the processor's cache, and is used again at once; what backward needs of it, it makes again.
"""

import threading
from collections.abc import Iterator

import numpy as np

from helpers.numpy_cnn.layers import Layer, he, over_images, total

# A block's windows should stay in what one core has of the second- and third-level caches.
BLOCK_BYTES = 2 << 20
_local = threading.local()


def scratch(slot: str, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Return this thread's array for ``slot``, with what it last held; shared by all layers, it stays in the cache."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory = _local.__dict__.get(slot)
    if memory is None or memory.nbytes < size:
        memory = _local.__dict__[slot] = np.empty(size, np.uint8)
    return memory[:size].view(dtype).reshape(shape)


class Conv2d(Layer):
    """y[n,i,j,o] = b[o] + Σ_{r,c,k} x[n, i·s + r - p, j·s + c - p, k] W[r,c,k,o], where x is 0 outside the image.

    W has the shape (kernel, kernel, in, out): read as a (kernel²·in, out) matrix, its rows are in the order of a
    window's numbers, so each output pixel is its window (a row) times W.
    """

    label = "conv"
    needs_output = False

    def __init__(self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, padding: int = 0) -> None:
        super().__init__()
        if not 0 <= padding < kernel:
            raise ValueError(f"Conv2d wants padding < kernel, got {padding=}, {kernel=}")
        self.inputs, self.outputs, self.kernel, self.stride, self.padding = inputs, outputs, kernel, stride, padding
        self.initialise(np.random.default_rng(0))

    def initialise(self, generator: np.random.Generator, dtype: np.dtype = np.float32) -> "Conv2d":
        """Return the layer itself with new weights (He's) and zero biases."""
        weight = he(generator, (self.kernel, self.kernel, self.inputs, self.outputs))
        self.parameters = {"weight": weight.astype(dtype), "bias": np.zeros(self.outputs, dtype)}
        return self

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return (H', W', out), where H' = ⌊(H + 2 padding - kernel) / stride⌋ + 1."""
        if len(shape) != 3 or shape[2] != self.inputs:
            raise self.wants(shape, f"(N, H, W, {self.inputs}): channels last, {self.inputs} of them")
        height, width = ((size + 2 * self.padding - self.kernel) // self.stride + 1 for size in shape[:2])
        if min(height, width) < 1:
            wanted = f"images of at least {self.kernel} pixels a side, padding of {self.padding} included"
            raise self.wants(shape, wanted)
        return height, width, self.outputs

    def forward(self, x: np.ndarray) -> np.ndarray:
        """Return the convolution of x: (N, H, W, in) -> (N, H', W', out)."""
        shape = self.check(x)
        self.x, y = x, self.buffer("y", shape, x.dtype)
        weight = self.parameters["weight"].reshape(-1, self.outputs)  # (kernel²·in, out)

        def convolve(share: slice) -> None:
            for block, columns in self._windows_of_x(share):
                np.matmul(columns, weight, out=y[block].reshape(-1, self.outputs))
                y[block] += self.parameters["bias"]

        over_images(convolve, len(x))
        return y

    def backward(self, dy: np.ndarray) -> np.ndarray | None:
        """Return dL/dx and fill dL/dW and dL/db.

        Pixel x[i] has a part in output y[(i + p - r) / s], with weight W[r], for every r where that is whole. So
        dx[i] = Σ_r dy[(i + p - r) / s] W[r]': a convolution too, of dy with the kernel turned by 180° and its two
        channel axes swapped. And dW[r] = Σ_i x[i]' dy[(i + p - r) / s] needs the very same windows of dy, so one
        unrolled block serves both products. A first layer needs no dx; the windows of x are then the cheaper ones.
        """
        weight = self.parameters["weight"]
        if not self.needs_input_gradient:
            dweight, bias = self._summed(lambda share: self._weight_gradient(share, dy))
            self.gradients = {"weight": dweight.reshape(weight.shape), "bias": bias}
            return None
        dx = self.buffer("dx", self.x.shape, dy.dtype)
        turned = weight[::-1, ::-1].transpose(0, 1, 3, 2).reshape(-1, self.inputs)  # (kernel²·out, in)
        dweight, bias = self._summed(lambda share: self._both_gradients(share, dy, turned, dx))
        # (in, kernel²·out) -> (in, kernel, kernel, out), turned back by 180° -> (kernel, kernel, in, out)
        dweight = dweight.reshape(self.inputs, self.kernel, self.kernel, self.outputs)[:, ::-1, ::-1]
        self.gradients = {"weight": np.ascontiguousarray(dweight.transpose(1, 2, 0, 3)), "bias": bias}
        return dx

    def _summed(self, work) -> list[np.ndarray]:
        """Return the sums, in the shares' order, of the arrays that ``work`` returns for each."""
        return [sum(arrays[1:], arrays[0]) for arrays in zip(*over_images(work, len(self.x)), strict=True)]

    def _weight_gradient(self, share: slice, dy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return one share's part of dW = columns(x)' dy, as (kernel²·in, out), and of db = Σ dy."""
        weight, bias = (np.zeros_like(self.parameters[name]) for name in ("weight", "bias"))
        weight = weight.reshape(-1, self.outputs)
        product = scratch("product", weight.shape, dy.dtype)
        for block, columns in self._windows_of_x(share):
            rows = dy[block].reshape(-1, self.outputs)  # (n·H'·W', out)
            weight += np.matmul(columns.T, rows, out=product)  # (kernel²·in, n·H'·W') @ (n·H'·W', out)
            bias += total(rows)
        return weight, bias

    def _both_gradients(self, share: slice, dy: np.ndarray, turned: np.ndarray, dx: np.ndarray) -> tuple:
        """Return one share's part of dW, as (in, kernel²·out), still turned, and of db, and write its part of dx."""
        weight, bias = np.zeros(turned.T.shape, dy.dtype), np.zeros_like(self.parameters["bias"])
        product = scratch("product", weight.shape, dy.dtype)
        for block, columns in self._windows_of_dy(share, dy):  # (n·H·W, kernel²·out): a window for each pixel of x
            np.matmul(columns, turned, out=dx[block].reshape(-1, self.inputs))
            rows = self.x[block].reshape(-1, self.inputs)  # (n·H·W, in)
            weight += np.matmul(rows.T, columns, out=product)  # (in, n·H·W) @ (n·H·W, kernel²·out)
            bias += total(dy[block])
        return weight, bias

    def _windows_of_x(self, share: slice) -> Iterator[tuple[slice, np.ndarray]]:
        # A row of kernel²·in numbers of x, padded, for each output pixel.
        canvas = [size + 2 * self.padding for size in self.x.shape[1:3]]
        place = [slice(self.padding, self.padding + size) for size in self.x.shape[1:3]]
        return unrolled(self.x, share, canvas, place, self.kernel, self.stride)

    def _windows_of_dy(self, share: slice, dy: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
        # A row of kernel²·out numbers of dy for each pixel of x. Window i reaches over all outputs that x[i] has a part
        # in, if dy is set kernel - 1 - padding into the zeros, with stride - 1 zeros between neighbours.
        start = self.kernel - 1 - self.padding
        canvas = [size + self.kernel - 1 for size in self.x.shape[1:3]]
        place = [slice(start, start + self.stride * (count - 1) + 1, self.stride) for count in dy.shape[1:3]]
        return unrolled(dy, share, canvas, place, self.kernel, 1)


def unrolled(
    images: np.ndarray, share: slice, canvas: list[int], place: list[slice], kernel: int, stride: int
) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield the blocks of a share, as slices of the batch, and their windows as rows (n·H'·W', kernel²·C) (im2col).

    Each image (H, W, C) is set on a ``canvas`` of zeros at ``place``, which pads it. A block has as many images as have
    their windows in ``BLOCK_BYTES``, at least one, and its rows are good until the next one.
    """
    channels, dtype = images.shape[3], images.dtype
    height, width = ((size - kernel) // stride + 1 for size in canvas)
    row = kernel * kernel * channels
    count = min(share.stop - share.start, max(1, BLOCK_BYTES // (height * width * row * dtype.itemsize)))
    padded = scratch("padded", (count, *canvas, channels), dtype)
    padded[:] = 0
    # sliding_window_view puts the window's two axes last: (n, H', W', C, kernel, kernel), a view
    view = np.lib.stride_tricks.sliding_window_view(padded, (kernel, kernel), axis=(1, 2))
    windows = view[:, ::stride, ::stride].transpose(0, 1, 2, 4, 5, 3)  # (n, H', W', kernel, kernel, C)
    columns = scratch("columns", windows.shape, dtype)
    for start in range(share.start, share.stop, count):
        block = slice(start, min(start + count, share.stop))
        n = block.stop - start
        padded[:n, place[0], place[1]] = images[block]
        np.copyto(columns[:n], windows[:n])  # window row by window row, each one piece of kernel·C numbers
        yield block, columns[:n].reshape(-1, row)


class MaxPool2d(Layer):
    """y = the largest number of each window of ``kernel`` x ``kernel`` pixels, side by side.

    The windows are never written out: for each place in a window there is a strided view of the image that holds this
    place of every window, (N, H', W', C). Rows and columns that fill no window are left out.
    """

    label = "pool"

    def __init__(self, kernel: int) -> None:
        super().__init__()
        self.kernel = kernel

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return (H', W', C)."""
        if len(shape) != 3 or min(shape[:2]) < self.kernel:
            raise self.wants(shape, f"(N, H, W, C): images, channels last, of at least {self.kernel} pixels a side")
        return shape[0] // self.kernel, shape[1] // self.kernel, shape[2]

    def _places(self, images: np.ndarray) -> list[np.ndarray]:
        k = self.kernel
        height, width = (size // k * k for size in images.shape[1:3])
        return [images[:, r:height:k, c:width:k] for r in range(k) for c in range(k)]

    def forward(self, x: np.ndarray) -> np.ndarray:
        """Return the windows' maxima: (N, H, W, C) -> (N, H', W', C)."""
        self.x = x
        self.y = y = self.buffer("y", self.check(x), x.dtype)

        def largest(share: slice) -> None:
            first, *others = self._places(x[share])
            y[share] = first
            for place in others:
                np.maximum(y[share], place, out=y[share])

        over_images(largest, len(x))
        return y

    def backward(self, dy: np.ndarray) -> np.ndarray:
        """Return dx: each window's gradient goes to its largest number, the first of them if there are several."""
        dx = self.buffer("dx", self.x.shape, dy.dtype)

        def give(share: slice) -> None:
            dx[share] = 0
            left = dy[share].copy()  # what is still to be given away
            *pairs, (_, last) = zip(self._places(self.x[share]), self._places(dx[share]), strict=True)
            for place, target in pairs:
                given = left * (place == self.y[share])
                target += given
                left -= given
            last += left  # where no other place was the largest, the last one is

        over_images(give, len(dy))
        return dx
