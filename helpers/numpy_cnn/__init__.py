"""A convolutional network in NumPy alone: every number of the forward and the backward pass is computed in here.

``layers`` explains the conventions and has the fast convolution, ``training`` the rest; notebook 02 shows the plain way
to each.
"""

from helpers.numpy_cnn.layers import (
    Conv2d,
    Flatten,
    Linear,
    MaxPool2d,
    ReLU,
    Sequential,
    softmax_cross_entropy,
    threads,
    use_threads,
)
from helpers.numpy_cnn.training import HISTORY, NETWORKS, SGD, Adam, Pictures, fit, normaliser, parts
