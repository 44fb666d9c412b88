"""Pooling: each window of a channel becomes one number, its largest or its mean."""

from collections.abc import Iterator

import numpy as np

from helpers.numpy_cnn.conv import Pair, output_size, pair
from helpers.numpy_cnn.layers import Layer
from helpers.numpy_cnn.threads import over_images


class Pool2d(Layer):
    """What both kinds share: windows of ``kernel`` pixels, ``stride`` apart (by default side by side).

    The windows are never written out. For each of the k·k places in a window there is a strided view of the
    image that holds this place of every window, (N, H', W', C), and the pool is an elementwise sum or maximum
    of them.
    """

    label = "pool"
    options = ("kernel", "stride", "padding")
    outside = 0.0  # the value of the padding

    def __init__(self, kernel: int | Pair, *, stride: int | Pair | None = None, padding: int | Pair = 0) -> None:
        """Take kernel, stride and padding: one number, or (vertical, horizontal)."""
        super().__init__()
        self.kernel = pair(kernel, f"{type(self).__name__}'s kernel", least=1)
        self.stride = pair(kernel if stride is None else stride, f"{type(self).__name__}'s stride", least=1)
        self.padding = pair(padding, f"{type(self).__name__}'s padding")
        if any(2 * p > k for p, k in zip(self.padding, self.kernel, strict=True)):
            raise ValueError(f"{type(self).__name__} wants a padding of at most half its kernel, got {padding!r}")

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return (H', W', C)."""
        if len(shape) != 3:
            raise self.wants(shape, "(N, H, W, C): images, channels last")
        size = output_size(shape[:2], self.kernel, self.stride, self.padding)
        if min(size) < 1:
            raise self.wants(shape, f"images of at least {self.kernel[0]}x{self.kernel[1]} pixels")
        return (*size, shape[2])

    def places(self, images: np.ndarray) -> Iterator[np.ndarray]:
        """Yield, for each place in a window, the view (n, H', W', C) of the padded ``images`` with that place."""
        (kh, kw), (sh, sw) = self.kernel, self.stride
        height, width = output_size(images.shape[1:3], self.kernel, self.stride, (0, 0))
        for r in range(kh):
            for c in range(kw):
                yield images[:, r : r + sh * (height - 1) + 1 : sh, c : c + sw * (width - 1) + 1 : sw]

    def pad(self, images: np.ndarray) -> np.ndarray:
        """Return the images with their border of ``outside``, or as they are where there is none."""
        if not any(self.padding):
            return images
        top, left = self.padding
        return np.pad(images, ((0, 0), (top, top), (left, left), (0, 0)), constant_values=self.outside)

    def receiver(self, dx: np.ndarray) -> np.ndarray:
        """Return zeros to add gradients to: ``dx`` itself, or, where there is padding, an array with its border."""
        into = dx if not any(self.padding) else self.pad(dx)
        into[...] = 0
        return into

    def keep(self, into: np.ndarray, dx: np.ndarray) -> None:
        """Copy what a ``receiver`` got into ``dx``, without the border, unless it is there already."""
        if any(self.padding):
            top, left = self.padding
            dx[...] = into[:, top : top + dx.shape[1], left : left + dx.shape[2]]


class MaxPool2d(Pool2d):
    """y = the largest number of each window."""

    outside = -np.inf

    def forward(self, x: np.ndarray) -> np.ndarray:
        """Return the windows' maxima: (N, H, W, C) -> (N, H', W', C)."""
        self.x = x
        self.y = y = self.buffer("y", self.check(x), x.dtype)

        def largest(share: slice) -> None:
            first, *others = self.places(self.pad(x[share]))
            y[share] = first
            for place in others:
                np.maximum(y[share], place, out=y[share])

        over_images(largest, len(x))
        return y

    def backward(self, dy: np.ndarray) -> np.ndarray:
        """Return dx: each window's gradient goes to its largest number, the first of them if there are several."""
        self.check_gradient(dy, self.y.shape)
        dx = self.buffer("dx", self.x.shape, dy.dtype)

        def give(share: slice) -> None:
            into = self.receiver(dx[share])
            left = dy[share].copy()  # what is still to be given away
            *pairs, (_, last) = zip(self.places(self.pad(self.x[share])), self.places(into), strict=True)
            for place, target in pairs:
                given = left * (place == self.y[share])
                target += given
                left -= given
            last += left  # where no other place was the largest, the last one is
            self.keep(into, dx[share])

        over_images(give, len(dy))
        return dx


class AvgPool2d(Pool2d):
    """y = the mean of each window, padding zeros included."""

    needs_output = False

    def forward(self, x: np.ndarray) -> np.ndarray:
        """Return the windows' means: (N, H, W, C) -> (N, H', W', C)."""
        self.x_shape = x.shape
        self.y_shape = self.check(x)
        y = self.buffer("y", self.y_shape, x.dtype)

        def mean(share: slice) -> None:
            first, *others = self.places(self.pad(x[share]))
            y[share] = first
            for place in others:
                y[share] += place
            y[share] /= self.kernel[0] * self.kernel[1]

        over_images(mean, len(x))
        return y

    def backward(self, dy: np.ndarray) -> np.ndarray:
        """Return dx: each number of a window has an equal part in its mean."""
        self.check_gradient(dy, self.y_shape)
        dx = self.buffer("dx", self.x_shape, dy.dtype)

        def give(share: slice) -> None:
            into = self.receiver(dx[share])
            part = dy[share] / (self.kernel[0] * self.kernel[1])
            for target in self.places(into):
                target += part
            self.keep(into, dx[share])

        over_images(give, len(dy))
        return dx
