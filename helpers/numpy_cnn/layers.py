"""The layers of a network: each one computes (``forward``) and hands gradients back (``backward``).

Images are stored channels last, (N, H, W, C): the numbers of a pixel are neighbours in memory, so that a
window's row is one piece, and a picture is a matrix of pixels times channels without moving anything.
Throughout, ``x`` is a layer's input, ``y`` its output, and ``dx`` means dL/dx, the gradient of the loss L
with respect to x.
"""

import numpy as np

from helpers.numpy_cnn.threads import one_blas_thread, over_images


class ShapeError(ValueError):
    """A layer was given an array that it cannot work on."""


class Layer:
    """One step of a network.

    ``parameters`` are trained, ``gradients`` (same names and shapes) are filled by ``backward``, and
    ``state`` is remembered but not trained (batch norm's running statistics).
    """

    label = "layer"
    options: tuple[str, ...] = ()  # the attributes that say what kind of layer it is
    # Whether backward looks at this layer's output again; if not, a ReLU behind it may overwrite it.
    needs_output = True

    def __init__(self) -> None:
        """Begin without parameters, in training mode."""
        self.name = self.label
        self.parameters: dict[str, np.ndarray] = {}
        self.gradients: dict[str, np.ndarray] = {}
        self.state: dict[str, np.ndarray] = {}
        self.training = True
        self.generator = np.random.default_rng(0)  # what is random in a training step (dropout)
        self.needs_input_gradient = True  # False for a first layer: nobody asks for dL/dimage
        # A Sequential sets these two. On its own, a layer leaves its input alone and returns new arrays.
        self.in_place = False
        self.reuse = False
        self._buffers: dict[str, np.ndarray] = {}

    def __repr__(self) -> str:
        """Return the layer's type and options."""
        return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)}' for name in self.options)})"

    def initialise(self, generator: np.random.Generator, dtype: np.dtype = np.float32) -> "Layer":
        """Return the layer itself, its parameters drawn anew; here there are none."""
        return self

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of one image's output, given that of one input; raises ShapeError where it cannot be."""
        return shape

    def forward(self, x: np.ndarray) -> np.ndarray:
        """Return the output of a batch ``x`` (N, …)."""
        raise NotImplementedError

    def backward(self, dy: np.ndarray) -> np.ndarray | None:
        """Return dL/dx of the last ``forward``'s input, given dL/dy, and fill ``gradients``."""
        raise NotImplementedError

    def wants(self, shape: tuple[int, ...], wanted: str) -> ShapeError:
        """Return the error that says which layer this is, what it got and what it wants."""
        got = "(" + ", ".join(["N", *map(str, shape)]) + ")"
        return ShapeError(f"{self.name} ({type(self).__name__}): got an input of shape {got}, wants {wanted}")

    def check(self, x: np.ndarray) -> tuple[int, ...]:
        """Return the shape of the output of a batch ``x``, or raise ShapeError or TypeError."""
        for parameter in self.parameters.values():
            if x.dtype != parameter.dtype:
                raise TypeError(
                    f"{self.name} ({type(self).__name__}): got {x.dtype} numbers, wants {parameter.dtype} like its "
                    f"parameters; convert with x.astype(np.{parameter.dtype})"
                )
        return (len(x), *self.output_shape(x.shape[1:]))

    def check_gradient(self, dy: np.ndarray, y_shape: tuple[int, ...]) -> None:
        """Raise ShapeError unless ``dy`` has the shape of the output it is the gradient of."""
        if dy.shape != y_shape:
            raise ShapeError(
                f"{self.name} ({type(self).__name__}): got a gradient of shape {dy.shape}, wants {y_shape}, the "
                "shape of its last output"
            )

    def buffer(self, key: str, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """Return an uninitialised array, inside a Sequential the same one at every step of the same size.

        New memory of some megabytes is handed out page by page by the system, which costs more than a ReLU.
        """
        if not self.reuse:
            return np.empty(shape, dtype)
        kept = self._buffers.get(key)
        if kept is None or kept.shape != shape or kept.dtype != dtype:
            kept = self._buffers[key] = np.empty(shape, dtype)
        return kept


def initial_weights(
    generator: np.random.Generator, shape: tuple[int, ...], fan_in: int, fan_out: int, scheme: str
) -> np.ndarray:
    """Return float64 weights drawn so that signals keep their size from layer to layer.

    ``"he"``: normal, variance 2 / fan_in, for ReLU, which lets half of the signal through (He et al., 2015,
    eq. 10). ``"xavier"``: uniform, variance 2 / (fan_in + fan_out) (Glorot and Bengio, 2010, eq. 16).
    """
    if scheme == "he":
        return generator.normal(0.0, np.sqrt(2.0 / fan_in), shape)
    if scheme == "xavier":
        limit = np.sqrt(6.0 / (fan_in + fan_out))
        return generator.uniform(-limit, limit, shape)
    raise ValueError(f"unknown initialisation {scheme!r}; choose 'he' or 'xavier'")


def total(values: np.ndarray) -> np.ndarray:
    """Return the sum over all axes but the last, as a product with ones: BLAS adds much faster than ``sum``."""
    rows = values.reshape(-1, values.shape[-1])  # (…, C) -> (rows, C)
    return np.ones(len(rows), rows.dtype) @ rows  # (rows,) @ (rows, C) -> (C,)


class Linear(Layer):
    """Fully connected: y = x W + b, with W of shape (in, out)."""

    label = "fc"
    options = ("inputs", "outputs")
    needs_output = False

    def __init__(self, inputs: int, outputs: int, *, init: str = "he") -> None:
        """Take the numbers of inputs and outputs; ``init`` is "he" or "xavier"."""
        super().__init__()
        self.inputs, self.outputs, self.init = inputs, outputs, init
        self.initialise(np.random.default_rng(0))

    def initialise(self, generator: np.random.Generator, dtype: np.dtype = np.float32) -> "Linear":
        """Return the layer itself with new weights (``init``) and zero biases."""
        shape = (self.inputs, self.outputs)
        self.parameters = {
            "weight": initial_weights(generator, shape, *shape, self.init).astype(dtype),
            "bias": np.zeros(self.outputs, dtype),
        }
        return self

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return (out,)."""
        if shape != (self.inputs,):
            raise self.wants(shape, f"(N, {self.inputs}); images go through a Flatten first")
        return (self.outputs,)

    def forward(self, x: np.ndarray) -> np.ndarray:
        """Return x W + b: (N, in) -> (N, out)."""
        self.y_shape = self.check(x)
        self.x = x
        with one_blas_thread():
            return x @ self.parameters["weight"] + self.parameters["bias"]

    def backward(self, dy: np.ndarray) -> np.ndarray | None:
        """Return dx = dy W'; the gradients are dW = x' dy and db = the sum of dy over the batch (' = transposed)."""
        self.check_gradient(dy, self.y_shape)
        with one_blas_thread():
            self.gradients = {
                "weight": self.x.T @ dy,  # (in, N) @ (N, out) -> (in, out)
                "bias": dy.sum(axis=0),  # (out,)
            }
            return dy @ self.parameters["weight"].T if self.needs_input_gradient else None


class ReLU(Layer):
    """y = max(x, 0). Its slope is 1 where y > 0 and 0 elsewhere, so the output is all that backward needs."""

    label = "relu"
    slope = 0.0

    def forward(self, x: np.ndarray) -> np.ndarray:
        """Return max(x, slope x), elementwise, any shape."""
        self.y = y = x if self.in_place else self.buffer("y", x.shape, x.dtype)

        def rectify(share: slice) -> None:
            # For 0 <= slope < 1, the larger of x and slope x is the right one on both sides of 0.
            np.maximum(x[share], self.slope * x[share] if self.slope else 0, out=y[share])

        over_images(rectify, len(x))
        return y

    def backward(self, dy: np.ndarray) -> np.ndarray:
        """Return dy where y > 0, slope dy elsewhere."""
        self.check_gradient(dy, self.y.shape)
        dx = dy if self.in_place else self.buffer("dx", dy.shape, dy.dtype)

        def gate(share: slice) -> None:
            is_open = self.y[share] > 0
            slope = np.maximum(is_open, self.slope, dtype=dy.dtype) if self.slope else is_open
            np.multiply(dy[share], slope, out=dx[share])

        over_images(gate, len(dy))
        return dx


class LeakyReLU(ReLU):
    """y = x where x > 0, slope x elsewhere: a closed unit still passes a little gradient (Maas et al., 2013)."""

    options = ("slope",)

    def __init__(self, slope: float = 0.01) -> None:
        """Take the slope below zero."""
        super().__init__()
        if not 0 <= slope < 1:
            raise ValueError(f"LeakyReLU wants a slope from 0 up to, not including, 1; got {slope}")
        self.slope = slope


class Flatten(Layer):
    """y = x with each image's numbers in one row: (N, H, W, C) -> (N, H·W·C). Nothing is computed or copied."""

    label = "flatten"

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return (H·W·C,)."""
        return (int(np.prod(shape)),)

    def forward(self, x: np.ndarray) -> np.ndarray:
        """Return x as (N, H·W·C)."""
        self.x_shape = x.shape
        return x.reshape(self.check(x))

    def backward(self, dy: np.ndarray) -> np.ndarray:
        """Return dy in the images' shape again."""
        self.check_gradient(dy, (self.x_shape[0], int(np.prod(self.x_shape[1:]))))
        return dy.reshape(self.x_shape)


class Dropout(Layer):
    """In training, y = x m / (1 - p) with each m zero with probability p, else one; y = x otherwise.

    The division keeps the expected output the same in both modes (Srivastava et al., 2014).
    """

    label = "dropout"
    options = ("p",)

    def __init__(self, p: float = 0.5) -> None:
        """Take the probability p that a number is dropped."""
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"Dropout wants a probability p from 0 up to, not including, 1; got {p}")
        self.p = p

    def forward(self, x: np.ndarray) -> np.ndarray:
        """Return x with a share p of its numbers dropped, any shape."""
        self.mask = None
        if not self.training or self.p == 0:
            return x
        keep = self.generator.random(x.shape, np.float32) >= self.p
        self.mask = np.multiply(keep, 1 / (1 - self.p), dtype=x.dtype)
        return x * self.mask

    def backward(self, dy: np.ndarray) -> np.ndarray:
        """Return dy m / (1 - p): what was dropped has no gradient."""
        return dy if self.mask is None else dy * self.mask
