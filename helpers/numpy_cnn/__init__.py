"""A convolutional network in NumPy alone: every number of the forward and the backward pass is computed in here.

``layers`` explains the conventions, ``conv`` the fast convolution, ``training`` the rest; notebook 02 shows the plain
way to each.
"""

from helpers.numpy_cnn.conv import AvgPool2d, Conv2d, MaxPool2d
from helpers.numpy_cnn.layers import BatchNorm, Flatten, Linear, ReLU, Sequential, softmax_cross_entropy
from helpers.numpy_cnn.threads import threads, use_threads
from helpers.numpy_cnn.training import NETWORKS, SGD, Adam, Pictures, fit, normaliser, parts, predict
