"""A convolutional network in NumPy alone: every number of the forward and the backward pass is computed in here.

``layers`` explains the conventions, ``conv`` the fast convolution, ``stages`` the way to it, ``training`` the
rest.
"""

from helpers.numpy_cnn.conv import Conv2d
from helpers.numpy_cnn.layers import Dropout, Flatten, Layer, LeakyReLU, Linear, ReLU, ShapeError
from helpers.numpy_cnn.loss import softmax, softmax_cross_entropy
from helpers.numpy_cnn.network import Sequential
from helpers.numpy_cnn.networks import NETWORKS
from helpers.numpy_cnn.norm import BatchNorm
from helpers.numpy_cnn.optimizers import OPTIMIZERS, SGD, Adagrad, Adam, RMSprop
from helpers.numpy_cnn.pooling import AvgPool2d, MaxPool2d
from helpers.numpy_cnn.training import Pictures, classwise_accuracy, evaluate, fit, predict

__all__ = [
    "NETWORKS",
    "OPTIMIZERS",
    "SGD",
    "Adagrad",
    "Adam",
    "AvgPool2d",
    "BatchNorm",
    "Conv2d",
    "Dropout",
    "Flatten",
    "Layer",
    "LeakyReLU",
    "Linear",
    "MaxPool2d",
    "Pictures",
    "RMSprop",
    "ReLU",
    "Sequential",
    "ShapeError",
    "classwise_accuracy",
    "evaluate",
    "fit",
    "predict",
    "softmax",
    "softmax_cross_entropy",
]
