"""Optimizers: how a gradient g becomes a step of a weight w. The formulas and defaults are PyTorch's."""

import numpy as np

from helpers.numpy_cnn.layers import Layer


class Optimizer:
    """What all share: the learning rate ``lr``, L2 weight decay, a step count and some memory per weight.

    ``memory["conv1.weight"]["velocity"]`` and the like start at zero, and are saved with a checkpoint.
    """

    def __init__(self, lr: float, *, weight_decay: float = 0.0) -> None:
        """Take the learning rate; ``weight_decay`` λ adds λ w to the gradient."""
        if lr <= 0:
            raise ValueError(f"{type(self).__name__} wants a learning rate lr above 0, got {lr}")
        self.lr, self.weight_decay = lr, weight_decay
        self.steps = 0
        self.memory: dict[str, dict[str, np.ndarray]] = {}

    def step(self, network: Layer) -> None:
        """Move every parameter of the network, in place, by its gradient of the last ``backward``."""
        self.steps += 1
        for name, w in network.parameters.items():
            g = network.gradients[name]
            if self.weight_decay:
                g = g + self.weight_decay * w
            self.update(w, g, self.memory.setdefault(name, {}))

    def update(self, w: np.ndarray, g: np.ndarray, memory: dict[str, np.ndarray]) -> None:
        """Move one parameter ``w`` in place, given its gradient ``g`` and what was remembered about it."""
        raise NotImplementedError


def _remembered(memory: dict[str, np.ndarray], key: str, like: np.ndarray) -> np.ndarray:
    """Return the array that ``memory`` keeps for ``key``, zeros at first."""
    if key not in memory:
        memory[key] = np.zeros_like(like)
    return memory[key]


class SGD(Optimizer):
    """v ← μ v + g, w ← w - lr v: stochastic gradient descent, with a momentum μ of 0 unless asked for."""

    def __init__(self, lr: float, *, momentum: float = 0.0, weight_decay: float = 0.0) -> None:
        """Take the learning rate and the momentum μ."""
        super().__init__(lr, weight_decay=weight_decay)
        self.momentum = momentum

    def update(self, w: np.ndarray, g: np.ndarray, memory: dict[str, np.ndarray]) -> None:
        """Move ``w`` by the velocity v, or by g itself without momentum."""
        if self.momentum:
            velocity = _remembered(memory, "velocity", w)
            velocity *= self.momentum
            velocity += g
            g = velocity
        w -= self.lr * g


class Adam(Optimizer):
    """m ← β₁ m + (1 - β₁) g, v ← β₂ v + (1 - β₂) g², w ← w - lr m̂ / (√v̂ + ε) (Kingma and Ba, 2015).

    m̂ = m / (1 - β₁ᵗ) and v̂ = v / (1 - β₂ᵗ) undo the start from zero, at step t.
    """

    def __init__(
        self,
        lr: float = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        epsilon: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        """Take the learning rate, (β₁, β₂) and ε."""
        super().__init__(lr, weight_decay=weight_decay)
        self.betas, self.epsilon = betas, epsilon

    def update(self, w: np.ndarray, g: np.ndarray, memory: dict[str, np.ndarray]) -> None:
        """Move ``w`` by the mean gradient over the root of the mean squared gradient."""
        beta1, beta2 = self.betas
        mean, square = _remembered(memory, "mean", w), _remembered(memory, "square", w)
        mean += (1 - beta1) * (g - mean)
        square *= beta2
        square += (1 - beta2) * g * g
        root = np.sqrt(square / (1 - beta2**self.steps)) + self.epsilon
        w -= self.lr / (1 - beta1**self.steps) * mean / root


class RMSprop(Optimizer):
    """v ← α v + (1 - α) g², w ← w - lr g / (√v + ε) (Tieleman and Hinton, 2012)."""

    def __init__(
        self, lr: float = 1e-2, *, alpha: float = 0.99, epsilon: float = 1e-8, weight_decay: float = 0.0
    ) -> None:
        """Take the learning rate, α and ε."""
        super().__init__(lr, weight_decay=weight_decay)
        self.alpha, self.epsilon = alpha, epsilon

    def update(self, w: np.ndarray, g: np.ndarray, memory: dict[str, np.ndarray]) -> None:
        """Move ``w`` by the gradient over the root of its recent mean square."""
        square = _remembered(memory, "square", w)
        square *= self.alpha
        square += (1 - self.alpha) * g * g
        w -= self.lr * g / (np.sqrt(square) + self.epsilon)


class Adagrad(Optimizer):
    """s ← s + g², w ← w - lr g / (√s + ε): what moved much, moves ever less (Duchi et al., 2011)."""

    def __init__(self, lr: float = 1e-2, *, epsilon: float = 1e-10, weight_decay: float = 0.0) -> None:
        """Take the learning rate and ε."""
        super().__init__(lr, weight_decay=weight_decay)
        self.epsilon = epsilon

    def update(self, w: np.ndarray, g: np.ndarray, memory: dict[str, np.ndarray]) -> None:
        """Move ``w`` by the gradient over the root of the sum of all squares so far."""
        total = _remembered(memory, "total", w)
        total += g * g
        w -= self.lr * g / (np.sqrt(total) + self.epsilon)


OPTIMIZERS: dict[str, type[Optimizer]] = {"SGD": SGD, "Adam": Adam, "RMSprop": RMSprop, "Adagrad": Adagrad}
