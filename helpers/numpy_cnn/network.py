"""Layers in a row."""

import numpy as np

from helpers.numpy_cnn.layers import Layer, ReLU, ShapeError


class Sequential(Layer):
    """Layers in a row: y = f_n(… f_2(f_1(x))), and backward through them in reverse: the chain rule.

    The layers get names by kind (conv1, relu1, conv2 …) and fresh weights from ``seed``. With ``input_shape``
    (H, W, C) everything is checked at once, before any data come. Inside, arrays are used again at every
    step, so an output is good until the next ``forward``.
    """

    label = "network"

    def __init__(
        self,
        *layers: Layer,
        input_shape: tuple[int, ...] | None = None,
        seed: int = 0,
        dtype: np.dtype = np.float32,
        input_gradient: bool = False,
    ) -> None:
        """Take the layers in order; ``input_gradient`` asks ``backward`` for dL/dx as well, which costs time."""
        super().__init__()
        if not layers:
            raise ValueError("Sequential wants at least one layer, got none")
        self.layers = list(layers)
        counts: dict[str, int] = {}
        for layer in self.layers:
            counts[layer.label] = counts.get(layer.label, 0) + 1
            layer.name = f"{layer.label}{counts[layer.label]}"
            layer.reuse = True
        for before, layer in zip(self.layers[:-1], self.layers[1:], strict=True):
            # max(x, 0) may overwrite x if nobody needs x again; the last output belongs to the caller.
            layer.in_place = isinstance(layer, ReLU) and not before.needs_output and layer is not self.layers[-1]
        self.layers[0].needs_input_gradient = input_gradient
        self.initialise(np.random.default_rng(seed), dtype)
        if input_shape is not None:
            self.output_shape(input_shape)

    def __repr__(self) -> str:
        """Return the layers in order, by name."""
        return f"Sequential({', '.join(f'{layer.name}: {layer!r}' for layer in self.layers)})"

    def initialise(self, generator: np.random.Generator, dtype: np.dtype = np.float32) -> "Sequential":
        """Return the network itself, all its parameters drawn anew, layer by layer."""
        for layer in self.layers:
            layer.initialise(generator, dtype)
        self.parameters = self._named("parameters")
        self.state = self._named("state")
        return self

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the last layer's output shape for one image."""
        for layer in self.layers:
            shape = layer.output_shape(shape)
        return shape

    def forward(self, x: np.ndarray) -> np.ndarray:
        """Return the output of the last layer, logits (N, K) in a classifier, for a batch x (N, H, W, C)."""
        for layer in self.layers:
            x = layer.forward(x)
        return x

    def backward(self, dy: np.ndarray) -> np.ndarray | None:
        """Return dL/dx (None unless ``input_gradient``) and fill ``gradients``, given dL/dy of the last forward."""
        for layer in reversed(self.layers):
            dy = layer.backward(dy)
        self.gradients = self._named("gradients")
        return dy

    def train(self, training: bool = True, generator: np.random.Generator | None = None) -> "Sequential":
        """Return the network itself, set for training (or evaluation), with what dropout draws from."""
        for layer in self.layers:
            layer.training = training
            layer.generator = generator or layer.generator
        return self

    def load(self, arrays: dict[str, np.ndarray]) -> "Sequential":
        """Return the network itself with its parameters and state copied from ``arrays``, by name."""
        own = {**self.parameters, **self.state}
        if arrays.keys() != own.keys():
            odd = sorted(arrays.keys() ^ own.keys())
            raise ValueError(f"these weights are another network's: {', '.join(odd)} stand on one side only")
        for name, array in own.items():
            if arrays[name].shape != array.shape:
                raise ShapeError(f"{name}: got weights of shape {arrays[name].shape}, wants {array.shape}")
            array[...] = arrays[name]
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
        """Return all layers' arrays of one kind by full name, "conv1.weight"."""
        return {f"{layer.name}.{name}": array for layer in self.layers for name, array in getattr(layer, kind).items()}
