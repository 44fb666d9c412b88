"""The layers of a network: each one computes (``forward``) and hands gradients back (``backward``).

Images are stored channels last, (N, H, W, C): a window's row is one piece of memory, and a picture a matrix of pixels
times channels without moving anything. Throughout, ``x`` is a layer's input, ``y`` its output, and ``dx`` means dL/dx,
the gradient of the loss L with respect to x.

The images of a batch are shared among threads, as NumPy lets go of Python's lock inside its products and loops. The
numbers are the same on any machine: a batch is always cut into the same shares, however many threads there are, and
what the shares return comes back in their order.
"""

import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
from threadpoolctl import ThreadpoolController

SHARES = 4  # each costs a little; more of them would let more threads work

T = TypeVar("T")
_blas = ThreadpoolController().select(user_api="blas")
_threads = max([library["num_threads"] for library in _blas.info()], default=1)


def threads() -> int:
    """Return how many threads work on a batch: at first, as many as NumPy's BLAS has (``OMP_NUM_THREADS``)."""
    return _threads


@contextmanager
def use_threads(count: int) -> Iterator[None]:
    """Work with ``count`` threads inside the ``with`` block; the numbers stay the same, only the time changes."""
    global _threads
    before, _threads = _threads, count
    try:
        yield
    finally:
        _threads = before


def over_images(work: Callable[[slice], T], images: int) -> list[T]:
    """Return ``[work(share) for share in shares]``, a share being a slice of ``range(images)``.

    ``work`` runs on several threads at once: it may write to its own share of an array, but not add to a sum.
    """
    size = -(-images // SHARES)  # ceil
    shares = [slice(start, min(start + size, images)) for start in range(0, images, size)]
    with _blas.limit(limits=1):  # ours are busy already, and BLAS' own threads would only push them aside
        # A worker that is free takes the next share, so that one that is held up does not hold up the others.
        return list((map if _threads == 1 else _pool(_threads, os.getpid()).map)(work, shares))


@lru_cache(maxsize=1)
def _pool(workers: int, process: int) -> ThreadPoolExecutor:  # a forked process needs a pool of its own
    return ThreadPoolExecutor(workers, thread_name_prefix="numpy-cnn")


class Layer:
    """One step of a network.

    ``forward`` returns the output of a batch (N, …). ``backward`` returns dL/dx of the last ``forward``'s input, given
    dL/dy, and fills ``gradients``, which have the names and shapes of the ``parameters``, which are trained. ``state``
    is remembered but not trained (batch norm's running statistics).
    """

    label = "layer"
    # Whether backward looks at this layer's output again; if not, a ReLU behind it may overwrite it.
    needs_output = True

    def __init__(self) -> None:
        self.name, self.training = self.label, True
        self.parameters: dict[str, np.ndarray] = {}
        self.gradients: dict[str, np.ndarray] = {}
        self.state: dict[str, np.ndarray] = {}
        self.needs_input_gradient = True  # False for a first layer: nobody asks for dL/dimage
        # A Sequential sets these two. On its own, a layer leaves its input alone and returns new arrays.
        self.in_place = self.reuse = False
        self._buffers: dict[str, np.ndarray] = {}

    def initialise(self, generator: np.random.Generator, dtype: np.dtype = np.float32) -> "Layer":
        """Return the layer itself, its parameters drawn anew."""
        return self

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of one image's output, given that of its input, or raise ValueError."""
        return shape

    def wants(self, got: tuple[int, ...], wanted: str) -> ValueError:
        """Return the error that says which layer this is, what it got and what it wants."""
        shape = ", ".join(["N", *map(str, got)])
        return ValueError(f"{self.name} ({type(self).__name__}): got an input of shape ({shape}), wants {wanted}")

    def check(self, x: np.ndarray) -> tuple[int, ...]:
        """Return the shape of the output of a batch ``x``, or raise ValueError or TypeError."""
        for dtype in {parameter.dtype for parameter in self.parameters.values()} - {x.dtype}:
            layer = f"{self.name} ({type(self).__name__})"
            raise TypeError(f"{layer}: got {x.dtype} numbers, wants {dtype}; convert with x.astype(np.{dtype})")
        return (len(x), *self.output_shape(x.shape[1:]))

    def buffer(self, key: str, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """Return an uninitialised array, in a Sequential the same one at every step: new memory is slow."""
        if not self.reuse:
            return np.empty(shape, dtype)
        kept = self._buffers.get(key)
        if kept is None or kept.shape != shape or kept.dtype != dtype:
            kept = self._buffers[key] = np.empty(shape, dtype)
        return kept


def total(values: np.ndarray) -> np.ndarray:
    """Return the sum over all axes but the last, as a product with ones: BLAS adds much faster than ``sum``."""
    rows = values.reshape(-1, values.shape[-1])  # (…, C) -> (rows, C)
    return np.ones(len(rows), rows.dtype) @ rows  # (rows,) @ (rows, C) -> (C,)


def he(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Return normal float64 weights (…, out) of variance 2 / fan_in, so that signals keep their size behind ReLUs."""
    return generator.normal(0.0, np.sqrt(2.0 / np.prod(shape[:-1])), shape)


class Linear(Layer):
    """Fully connected: y = x W + b, with W of shape (in, out).

    ``init`` is "he" (He et al., 2015, eq. 10), or "xavier" where no ReLU follows: uniform, of variance 2 / (in + out)
    (Glorot and Bengio, 2010, eq. 16).
    """

    label = "fc"
    needs_output = False

    def __init__(self, inputs: int, outputs: int, *, init: str = "he") -> None:
        super().__init__()
        self.inputs, self.outputs, self.init = inputs, outputs, init
        self.initialise(np.random.default_rng(0))

    def initialise(self, generator: np.random.Generator, dtype: np.dtype = np.float32) -> "Linear":
        """Return the layer itself with new weights (``init``) and zero biases."""
        shape, limit = (self.inputs, self.outputs), np.sqrt(6.0 / (self.inputs + self.outputs))
        weight = generator.uniform(-limit, limit, shape) if self.init == "xavier" else he(generator, shape)
        self.parameters = {"weight": weight.astype(dtype), "bias": np.zeros(self.outputs, dtype)}
        return self

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return (out,)."""
        if shape != (self.inputs,):
            raise self.wants(shape, f"(N, {self.inputs}); images go through a Flatten first")
        return (self.outputs,)

    def forward(self, x: np.ndarray) -> np.ndarray:
        """Return x W + b: (N, in) -> (N, out)."""
        self.check(x)
        self.x = x
        with _blas.limit(limits=1):
            return x @ self.parameters["weight"] + self.parameters["bias"]

    def backward(self, dy: np.ndarray) -> np.ndarray:
        """Return dx = dy W'; the gradients are dW = x' dy and db = the sum of dy over the batch (' = transposed)."""
        with _blas.limit(limits=1):
            # (in, N) @ (N, out) -> (in, out), and (out,)
            self.gradients = {"weight": self.x.T @ dy, "bias": dy.sum(axis=0)}
            return dy @ self.parameters["weight"].T


class ReLU(Layer):
    """y = max(x, 0). Its slope is 1 where y > 0 and 0 elsewhere, so the output is all that backward needs."""

    label = "relu"

    def forward(self, x: np.ndarray) -> np.ndarray:
        """Return max(x, 0), elementwise, any shape."""
        self.y = y = x if self.in_place else self.buffer("y", x.shape, x.dtype)
        over_images(lambda share: np.maximum(x[share], 0, out=y[share]), len(x))
        return y

    def backward(self, dy: np.ndarray) -> np.ndarray:
        """Return dy where y > 0, 0 elsewhere."""
        dx = dy if self.in_place else self.buffer("dx", dy.shape, dy.dtype)
        over_images(lambda share: np.multiply(dy[share], self.y[share] > 0, out=dx[share]), len(dy))
        return dx


class Flatten(Layer):
    """y = x with each image's numbers in one row: (N, H, W, C) -> (N, H·W·C). Nothing is computed or copied."""

    label = "flatten"

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return (H·W·C,)."""
        return (int(np.prod(shape)),)

    def forward(self, x: np.ndarray) -> np.ndarray:
        """Return x as (N, H·W·C)."""
        self.x_shape = x.shape
        return x.reshape(len(x), -1)

    def backward(self, dy: np.ndarray) -> np.ndarray:
        """Return dy in the images' shape again."""
        return dy.reshape(self.x_shape)


class BatchNorm(Layer):
    """y = γ (x - μ) / √(σ² + ε) + β per channel, the last axis of (N, H, W, C) or (N, C) (Ioffe and Szegedy, 2015).

    In training μ and σ² are the batch's own; a running mean of them (σ² made unbiased) serves in evaluation.
    """

    label = "bn"
    needs_output = False
    momentum, epsilon = 0.1, 1e-5  # how fast the running statistics follow; ε

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.initialise(np.random.default_rng(0))

    def initialise(self, generator: np.random.Generator, dtype: np.dtype = np.float32) -> "BatchNorm":
        """Return the layer itself with γ = 1, β = 0, running mean 0 and variance 1."""
        self.parameters = {"weight": np.ones(self.channels, dtype), "bias": np.zeros(self.channels, dtype)}
        self.state = {"mean": np.zeros(self.channels, dtype), "variance": np.ones(self.channels, dtype)}
        return self

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the input's shape."""
        if not shape or shape[-1] != self.channels:
            raise self.wants(shape, f"{self.channels} channels in the last axis")
        return shape

    def forward(self, x: np.ndarray) -> np.ndarray:
        """Return γ x̂ + β, where x̂ is the normalised input."""
        self.check(x)
        mean, variance = self.state.values()
        if self.training:  # the batch's own, towards which the running ones move
            count = x.size // self.channels
            mean = np.sum(over_images(lambda share: total(x[share]), len(x)), axis=0) / count
            variance = np.sum(over_images(lambda share: total((x[share] - mean) ** 2), len(x)), axis=0) / count
            for name, value in (("mean", mean), ("variance", variance * (count / (count - 1)))):
                self.state[name] += self.momentum * (value - self.state[name])
        self.scale = 1 / np.sqrt(variance + self.epsilon)  # (C,)
        self.normal = self.buffer("normal", x.shape, x.dtype)
        y = self.buffer("y", x.shape, x.dtype)

        def normalise(share: slice) -> None:
            np.subtract(x[share], mean, out=self.normal[share])
            self.normal[share] *= self.scale
            np.multiply(self.normal[share], self.parameters["weight"], out=y[share])
            y[share] += self.parameters["bias"]

        over_images(normalise, len(x))
        return y

    def backward(self, dy: np.ndarray) -> np.ndarray:
        """Return dx = γ/σ (dy - mean(dy) - x̂ mean(dy x̂)); the two means vanish in evaluation. dβ = Σ dy, dγ = Σ dy x̂.

        μ and σ² depend on every x of the channel: moving all of them together, or apart, does not change x̂.
        """
        sums = over_images(lambda share: (total(dy[share]), total(dy[share] * self.normal[share])), len(dy))
        bias, weight = (np.sum(part, axis=0) for part in zip(*sums, strict=True))  # (C,), (C,)
        self.gradients = {"weight": weight, "bias": bias}
        count, dx = dy.size // self.channels, self.buffer("dx", dy.shape, dy.dtype)

        def pass_back(share: slice) -> None:
            if self.training:
                np.multiply(self.normal[share], -weight / count, out=dx[share])
                dx[share] += dy[share]
                dx[share] -= bias / count
                dx[share] *= self.parameters["weight"] * self.scale
            else:
                np.multiply(dy[share], self.parameters["weight"] * self.scale, out=dx[share])

        over_images(pass_back, len(dy))
        return dx


class Sequential(Layer):
    """Layers in a row, and backward through them in reverse: the chain rule. An output is good until the next forward.

    The layers get names by kind (conv1, relu1, conv2 …) and fresh weights from ``seed``.
    """

    label = "network"

    def __init__(self, *layers: Layer, seed: int = 0, dtype: np.dtype = np.float32) -> None:
        super().__init__()
        self.layers = list(layers)
        generator, counts = np.random.default_rng(seed), Counter()
        for layer in self.layers:
            counts[layer.label] += 1
            layer.name = f"{layer.label}{counts[layer.label]}"
            layer.reuse = True
            layer.initialise(generator, dtype)
        for before, layer in pairwise(self.layers):
            # max(x, 0) may overwrite x if nobody needs x again; the last output belongs to the caller.
            layer.in_place = isinstance(layer, ReLU) and not before.needs_output and layer is not self.layers[-1]
        self.layers[0].needs_input_gradient = False
        self.parameters, self.state = self._named("parameters"), self._named("state")

    def forward(self, x: np.ndarray) -> np.ndarray:
        """Return the output of the last layer, logits (N, K) in a classifier, for a batch x (N, H, W, C)."""
        for layer in self.layers:
            x = layer.forward(x)
        return x

    def backward(self, dy: np.ndarray) -> np.ndarray | None:
        """Fill ``gradients``, given dL/dy of the last forward; return dL/dx, or None where a convolution is first."""
        for layer in reversed(self.layers):
            dy = layer.backward(dy)
        self.gradients = self._named("gradients")
        return dy

    def train(self, training: bool = True) -> "Sequential":
        """Return the network itself, set for training (or evaluation)."""
        for layer in self.layers:
            layer.training = training
        return self

    def table(self, input_shape: tuple[int, ...] = (32, 32, 3)) -> list[dict]:
        """Return a row per layer: its name, type, output shape and number of parameters."""
        rows = []
        for layer in self.layers:
            input_shape = layer.output_shape(input_shape)
            size = sum(parameter.size for parameter in layer.parameters.values())
            rows.append({"layer": layer.name, "type": type(layer).__name__, "output": input_shape, "parameters": size})
        return rows

    def _named(self, kind: str) -> dict[str, np.ndarray]:
        return {f"{layer.name}.{name}": array for layer in self.layers for name, array in getattr(layer, kind).items()}


def softmax_cross_entropy(logits: np.ndarray, labels: np.ndarray) -> tuple[float, np.ndarray]:
    """Return (L, dL/dlogits) for L = -1/N Σ log p[n, label n], the mean over a batch of logits (N, K).

    p = exp(z) / Σ exp(z) for logits z, less the largest against overflow; the gradient is (p - t) / N, t one-hot.
    """
    images = np.arange(len(labels))
    shifted = logits - logits.max(axis=1, keepdims=True)  # (N, K)
    normaliser = np.exp(shifted).sum(axis=1, keepdims=True)  # (N, 1)
    loss = np.mean(np.log(normaliser[:, 0]) - shifted[images, labels])
    gradient = np.exp(shifted) / normaliser  # p
    gradient[images, labels] -= 1  # p - t
    gradient /= len(labels)
    return float(loss), gradient


# --- Layers that look through windows: convolution as matrix products over small, reused blocks, and pooling. ---
#
# The textbook way (im2col) writes the windows of a whole batch side by side, 9 times the data of the
# batch for a 3x3 kernel, and then multiplies once. Moving that much memory takes about as long as the arithmetic (R3's
# second layer, one thread: 10 ms and 11 ms). Here the same happens for a few images at a time, in one block of memory
# that stays in the processor's cache, and is used again at once; what backward needs of it, it makes again.

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
        weight, first = self.parameters["weight"], not self.needs_input_gradient
        dx = None if first else self.buffer("dx", self.x.shape, dy.dtype)
        turned = weight[::-1, ::-1].transpose(0, 1, 3, 2).reshape(-1, self.inputs)  # (kernel²·out, in)
        shape = (weight.size // self.outputs, self.outputs) if first else turned.T.shape

        def gradients(share: slice) -> tuple[np.ndarray, np.ndarray]:
            # One share's part of dW, as (kernel²·in, out) or, still turned, (in, kernel²·out), and of db = Σ dy.
            dweight, dbias = np.zeros(shape, dy.dtype), np.zeros_like(self.parameters["bias"])
            product = scratch("product", shape, dy.dtype)
            for block, columns in self._windows_of_x(share) if first else self._windows_of_dy(share, dy):
                if first:  # (n·H'·W', kernel²·in) and (n·H'·W', out)
                    left, right = columns, dy[block].reshape(-1, self.outputs)
                else:  # (n·H·W, in) and (n·H·W, kernel²·out): a window for each pixel of x
                    np.matmul(columns, turned, out=dx[block].reshape(-1, self.inputs))
                    left, right = self.x[block].reshape(-1, self.inputs), columns
                dweight += np.matmul(left.T, right, out=product)
                dbias += total(dy[block])
            return dweight, dbias

        shares = zip(*over_images(gradients, len(self.x)), strict=True)
        dweight, dbias = (sum(arrays[1:], arrays[0]) for arrays in shares)
        if not first:  # -> (in, kernel, kernel, out), turned back by 180° -> (kernel, kernel, in, out)
            dweight = dweight.reshape(self.inputs, self.kernel, self.kernel, self.outputs)[:, ::-1, ::-1]
            dweight = dweight.transpose(1, 2, 0, 3)
        self.gradients = {"weight": np.ascontiguousarray(dweight).reshape(weight.shape), "bias": dbias}
        return dx

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


def _block(inputs: int, outputs: int, *, pool: bool = True, norm: bool = False) -> list[Layer]:
    """Return a convolution that keeps the size, ReLU, and perhaps batch norm and a pool that halves the size."""
    layers = [Conv2d(inputs, outputs, 3, padding=1)] + [BatchNorm(outputs)] * norm
    return [*layers, ReLU()] + [MaxPool2d(2)] * pool


def r3(classes: int = 10, **options: Any) -> Sequential:
    """Return R3's network as published; that padding keeps the size is our reading."""
    layers = [*_block(3, 16, pool=False), *_block(16, 32), *_block(32, 64, pool=False), *_block(64, 128)]
    return Sequential(*layers, Flatten(), Linear(8 * 8 * 128, classes, init="xavier"), **options)


def r1(classes: int = 10, **options: Any) -> Sequential:
    """Return a net of the size of R1's, 126,059 parameters; the reading is that of ``helpers.models``' r1."""
    layers = [*_block(3, 16), *_block(16, 32), *_block(32, 64), Flatten(), Linear(4 * 4 * 64, 99), ReLU()]
    return Sequential(*layers, Linear(99, classes, init="xavier"), **options)


def r3_norm(classes: int = 10, **options: Any) -> Sequential:
    """Return R3's network with batch norm before each ReLU and a third pool: what passes 70 % soonest."""
    layers = _block(3, 16, pool=False, norm=True)
    for inputs in (16, 32, 64):
        layers += _block(inputs, 2 * inputs, norm=True)
    return Sequential(*layers, Flatten(), Linear(4 * 4 * 128, classes, init="xavier"), **options)


# Each takes the number of classes, and a Sequential's seed and dtype; images are (N, 32, 32, 3), outputs (N, classes).
NETWORKS: dict[str, Callable[..., Sequential]] = {"r1": r1, "r3": r3, "r3-norm": r3_norm}
