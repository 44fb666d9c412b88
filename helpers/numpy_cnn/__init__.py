"""A convolutional network in NumPy alone: every number of the forward and the backward pass is computed in here.

``layers`` explains the conventions, ``conv`` the fast convolution, ``training`` the rest; notebook 02 shows the plain
way to each.
"""

from helpers.numpy_cnn.conv import Conv2d, MaxPool2d
from helpers.numpy_cnn.layers import Flatten, Linear, ReLU, Sequential, softmax_cross_entropy, threads, use_threads
from helpers.numpy_cnn.training import HISTORY, NETWORKS, SGD, Adam, Pictures, fit, normaliser, parts
