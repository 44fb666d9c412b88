"""Batch normalisation."""

import numpy as np

from helpers.numpy_cnn.layers import Layer, total
from helpers.numpy_cnn.threads import over_images


class BatchNorm(Layer):
    """y = γ (x - μ) / √(σ² + ε) + β per channel, the last axis of (N, H, W, C) or (N, C) (Ioffe and Szegedy, 2015).

    In training μ and σ² are the batch's own; a running mean of them (σ² made unbiased) serves in evaluation.
    """

    label = "bn"
    options = ("channels", "momentum", "epsilon")
    needs_output = False

    def __init__(self, channels: int, *, momentum: float = 0.1, epsilon: float = 1e-5) -> None:
        """Take the number of channels; ``momentum`` is how fast the running statistics follow."""
        super().__init__()
        self.channels, self.momentum, self.epsilon = channels, momentum, epsilon
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
        count = x.size // self.channels
        if self.training and count < 2:
            raise ValueError(f"{self.name} (BatchNorm): wants more than one value a channel in training, got {count}")
        mean, variance = self._statistics(x, count) if self.training else tuple(self.state.values())
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
        """Return dx = γ/σ (dy - mean(dy) - x̂ mean(dy x̂)); the two means vanish in evaluation.

        They are there because μ and σ² depend on every x of the channel: moving all of them together, or all
        of them apart, does not change x̂, so dx has no part in those two directions. dβ = Σ dy, dγ = Σ dy x̂.
        """
        self.check_gradient(dy, self.normal.shape)
        sums = over_images(lambda share: (total(dy[share]), total(dy[share] * self.normal[share])), len(dy))
        bias, weight = (np.sum(part, axis=0) for part in zip(*sums, strict=True))  # (C,), (C,)
        self.gradients = {"weight": weight, "bias": bias}
        count = dy.size // self.channels
        dx = self.buffer("dx", dy.shape, dy.dtype)

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

    def _statistics(self, x: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the batch's mean and variance per channel, (C,) each, and move the running ones towards them."""
        mean = np.sum(over_images(lambda share: total(x[share]), len(x)), axis=0) / count
        variance = np.sum(over_images(lambda share: total((x[share] - mean) ** 2), len(x)), axis=0) / count
        for name, value in (("mean", mean), ("variance", variance * (count / (count - 1)))):
            self.state[name] += self.momentum * (value - self.state[name])
        return mean, variance
