"""Whole NumPy networks: the chain rule, the same course of training as PyTorch, and errors that help."""

import numpy as np
import pytest
import torch
from numpy_twin import to_numpy, to_torch, twin, weight_to_torch
from torch.nn import functional as F

from helpers import numpy_cnn as cnn
from helpers.numpy_cnn import training
from helpers.numpy_cnn.check import numeric_gradient, relative_error
from helpers.numpy_cnn.threads import use_threads


def rng(seed=0):
    return np.random.default_rng(seed)


def everything(dtype=np.float64, **options):
    """Return a small network in which every kind of layer has its place, dropout aside."""
    return cnn.Sequential(
        cnn.Conv2d(3, 4, 3, padding=1),
        cnn.ReLU(),
        cnn.BatchNorm(4),  # not straight behind a bias, whose gradient would be zero, and its rounding all there is
        cnn.MaxPool2d(2),
        cnn.LeakyReLU(0.2),  # behind a layer that needs its output: may not overwrite it
        cnn.Conv2d(4, 6, 3, stride=2),
        cnn.LeakyReLU(0.1),  # may
        cnn.AvgPool2d(2, stride=1),
        cnn.Flatten(),
        cnn.Linear(54, 8),
        cnn.ReLU(),
        cnn.BatchNorm(8),
        cnn.Linear(8, 5, init="xavier"),
        dtype=dtype,
        **options,
    )


def test_a_network_s_gradients_are_autograd_s_and_finite_differences():
    network = everything(input_gradient=True, seed=3)
    x, labels = rng(4).standard_normal((6, 20, 18, 3)), rng(1).integers(0, 5, 6)
    module, tx = twin(network), to_torch(x).requires_grad_()
    theirs = F.cross_entropy(module(tx), torch.from_numpy(labels))
    theirs.backward()
    loss, dlogits = cnn.softmax_cross_entropy(network.forward(x), labels)
    dx = network.backward(dlogits)
    assert loss == pytest.approx(theirs.item(), rel=1e-9)
    assert relative_error(dx, to_numpy(tx.grad)) < 1e-9
    for ours, parameter in zip(network.gradients.values(), module.parameters(), strict=True):
        assert relative_error(weight_to_torch(ours).numpy(), parameter.grad.numpy()) < 1e-9

    kept = {name: gradient.copy() for name, gradient in network.gradients.items()}
    for name in ("conv1.bias", "fc2.weight", "bn1.weight"):
        numeric = numeric_gradient(
            lambda: cnn.softmax_cross_entropy(network.forward(x), labels)[0], network.parameters[name]
        )
        assert np.abs(kept[name] - numeric).max() < 1e-7


@pytest.mark.parametrize(
    "optimizer, theirs, options",
    [
        (lambda: cnn.SGD(0.05), torch.optim.SGD, {"lr": 0.05}),
        (lambda: cnn.SGD(0.05, momentum=0.9), torch.optim.SGD, {"lr": 0.05, "momentum": 0.9}),
        (lambda: cnn.Adam(3e-4), torch.optim.Adam, {"lr": 3e-4}),
        (lambda: cnn.RMSprop(1e-3), torch.optim.RMSprop, {"lr": 1e-3}),
        (lambda: cnn.Adagrad(1e-2, epsilon=1e-8), torch.optim.Adagrad, {"lr": 1e-2, "eps": 1e-8}),
    ],
    ids=["sgd", "momentum", "adam", "rmsprop", "adagrad"],
)
def test_twenty_steps_of_training_have_pytorch_s_losses(optimizer, theirs, options):
    network, ours = everything(seed=1), optimizer()
    module = twin(network)
    reference = theirs(module.parameters(), **options)
    expected, losses = [], []
    for step in range(20):
        x, labels = rng(step).standard_normal((9, 20, 18, 3)), rng(step).integers(0, 5, 9)
        loss = F.cross_entropy(module(to_torch(x)), torch.from_numpy(labels))
        reference.zero_grad()
        loss.backward()
        reference.step()
        expected.append(loss.item())
        loss, dlogits = cnn.softmax_cross_entropy(network.train().forward(x), labels)
        network.backward(dlogits)
        ours.step(network)
        losses.append(loss)
    # A gradient that should be zero is rounding, 1e-16, and divided by its size and epsilon, 1e-8, at most 1e-8: twenty
    # steps of a rate up to 0.01 along it stay below 1e-8.
    assert losses == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize("name", ["r3", "r1", "r3-norm"])
@pytest.mark.parametrize("dtype, steps, error", [(np.float64, 20, 1e-8), (np.float32, 3, 1e-4)])
def test_the_reports_networks_train_as_pytorch_does(name, dtype, steps, error):
    network, optimizer = cnn.NETWORKS[name](seed=2, dtype=dtype), cnn.SGD(0.01, momentum=0.9)
    module = twin(network)
    reference = torch.optim.SGD(module.parameters(), lr=0.01, momentum=0.9)
    for step in range(steps):
        x, labels = rng(step).standard_normal((5, 32, 32, 3)).astype(dtype), rng(step).integers(0, 10, 5)
        expected = F.cross_entropy(module(to_torch(x)), torch.from_numpy(labels))
        reference.zero_grad()
        expected.backward()
        reference.step()
        loss, dlogits = cnn.softmax_cross_entropy(network.train().forward(x), labels)
        network.backward(dlogits)
        optimizer.step(network)
        assert loss == pytest.approx(expected.item(), rel=error)


def test_r1_has_the_published_number_of_parameters_and_r3_the_expected_shapes():
    assert sum(row["parameters"] for row in cnn.NETWORKS["r1"]().table()) == 126_059
    shapes = {row["layer"]: row["output"] for row in cnn.NETWORKS["r3"]().table()}
    assert shapes["pool1"] == (16, 16, 32) and shapes["conv4"] == (16, 16, 128) and shapes["flatten1"] == (8192,)


def test_a_network_leaves_its_input_alone_and_gives_new_logits():
    network = everything(np.float32)
    x = rng().standard_normal((3, 20, 18, 3)).astype(np.float32)
    before = x.copy()
    first = network.forward(x)
    kept = first.copy()
    network.forward(x + 1)
    assert np.array_equal(x, before) and np.array_equal(first, kept)
    network.backward(first)
    assert np.array_equal(first, kept)


def test_batches_of_changing_size_do_not_disturb_each_other():
    network = everything(np.float32).train(False)
    x = rng().standard_normal((20, 20, 18, 3)).astype(np.float32)
    whole = network.forward(x).copy()
    parts = [network.forward(part).copy() for part in (x[:7], x[7:8], x[8:])]
    assert np.allclose(np.concatenate(parts), whole, rtol=1e-5, atol=1e-6)


def test_a_whole_training_step_is_the_same_on_any_number_of_threads():
    weights = []
    for threads in (1, 2, 5):
        with use_threads(threads):
            network, optimizer = cnn.NETWORKS["r3-norm"](seed=1), cnn.Adam()
            for step in range(2):
                x = rng(step).standard_normal((21, 32, 32, 3)).astype(np.float32)
                _, dlogits = cnn.softmax_cross_entropy(network.forward(x), rng(step).integers(0, 10, 21))
                network.backward(dlogits)
                optimizer.step(network)
            weights.append(network.parameters)
    for other in weights[1:]:
        assert all(np.array_equal(weights[0][name], other[name]) for name in other)


def test_dropout_in_a_network_draws_from_the_generator_it_is_given():
    network = cnn.Sequential(cnn.Linear(50, 50), cnn.Dropout(0.5), cnn.Linear(50, 3))
    x = rng().standard_normal((4, 50)).astype(np.float32)
    a, b, c = (network.train(True, rng(seed)).forward(x) for seed in (1, 1, 2))
    assert np.array_equal(a, b) and not np.array_equal(a, c)
    assert np.array_equal(network.train(False).forward(x), network.forward(x))


@pytest.mark.parametrize(
    "build, x, message",
    [
        (
            lambda: cnn.Sequential(cnn.Conv2d(3, 4, 3), cnn.ReLU(), cnn.Conv2d(8, 4, 3)),
            np.zeros((2, 9, 9, 3), np.float32),
            r"conv2 \(Conv2d\): got an input of shape \(N, 7, 7, 4\), wants \(N, H, W, 8\): channels last, 8 of them",
        ),
        (
            lambda: cnn.Sequential(cnn.Conv2d(3, 4, 3)),
            np.zeros((2, 3, 9, 9), np.float32),
            r"conv1 \(Conv2d\): got an input of shape \(N, 3, 9, 9\), wants \(N, H, W, 3\): channels last",
        ),
        (
            lambda: cnn.Sequential(cnn.Conv2d(3, 4, 7)),
            np.zeros((2, 6, 9, 3), np.float32),
            r"conv1 \(Conv2d\): got an input of shape \(N, 6, 9, 3\), wants images of at least 7x7 pixels",
        ),
        (
            lambda: cnn.Sequential(cnn.MaxPool2d(2), cnn.MaxPool2d(4)),
            np.zeros((2, 6, 9, 3), np.float32),
            r"pool2 \(MaxPool2d\): got an input of shape \(N, 3, 4, 3\), wants images of at least 4x4 pixels",
        ),
        (
            lambda: cnn.Sequential(cnn.Flatten(), cnn.Linear(100, 10)),
            np.zeros((2, 4, 4, 3), np.float32),
            r"fc1 \(Linear\): got an input of shape \(N, 48\), wants \(N, 100\)",
        ),
        (
            lambda: cnn.Sequential(cnn.Linear(48, 10)),
            np.zeros((2, 4, 4, 3), np.float32),
            r"fc1 \(Linear\): got an input of shape \(N, 4, 4, 3\), wants \(N, 48\); images go through a Flatten",
        ),
        (
            lambda: cnn.Sequential(cnn.BatchNorm(5)),
            np.zeros((2, 4, 4, 3), np.float32),
            r"bn1 \(BatchNorm\): got an input of shape \(N, 4, 4, 3\), wants 5 channels in the last axis",
        ),
    ],
    ids=["channels", "channels first", "small image", "small pool", "features", "not flat", "batch norm"],
)
def test_shape_errors_name_the_layer_what_it_got_and_what_it_wants(build, x, message):
    with pytest.raises(cnn.ShapeError, match=message):
        build().forward(x)


def test_a_network_that_cannot_work_is_refused_before_any_data():
    with pytest.raises(cnn.ShapeError, match=r"fc1 \(Linear\): got .*\(N, 8192\), wants \(N, 4096\)"):
        cnn.Sequential(cnn.MaxPool2d(2), cnn.Flatten(), cnn.Linear(4096, 10), input_shape=(64, 64, 8))


def test_a_gradient_of_the_wrong_shape_is_refused():
    for layer in (cnn.Conv2d(3, 4, 3), cnn.MaxPool2d(2), cnn.AvgPool2d(2), cnn.ReLU(), cnn.BatchNorm(3)):
        y = layer.forward(np.ones((2, 6, 6, 3), np.float32))
        with pytest.raises(cnn.ShapeError, match=r"got a gradient of shape .* wants .* the shape of its last output"):
            layer.backward(y[:, :1])


def test_other_misuse_is_explained():
    with pytest.raises(TypeError, match=r"conv1 \(Conv2d\): got float64 numbers, wants float32"):
        cnn.Sequential(cnn.Conv2d(3, 4, 3)).forward(np.zeros((1, 5, 5, 3)))
    with pytest.raises(ValueError, match="unknown initialisation 'lecun'; choose 'he' or 'xavier'"):
        cnn.Linear(3, 4, init="lecun")
    with pytest.raises(ValueError, match="kernel wants one or two whole numbers of at least 1, got 0"):
        cnn.Conv2d(3, 4, 0)
    with pytest.raises(ValueError, match="padding of at most half its kernel"):
        cnn.MaxPool2d(2, padding=2)
    with pytest.raises(ValueError, match="Dropout wants a probability p from 0 up to, not including, 1; got 1"):
        cnn.Dropout(1)
    with pytest.raises(ValueError, match="learning rate lr above 0, got -1"):
        cnn.SGD(-1)
    with pytest.raises(ValueError, match="2 labels for 3 images"):
        cnn.softmax_cross_entropy(np.zeros((3, 4)), np.zeros(2, int))
    with pytest.raises(ValueError, match="more than one value a channel in training"):
        cnn.BatchNorm(3).forward(np.zeros((1, 3), np.float32))


def test_weights_of_another_network_are_refused():
    small, large = cnn.Sequential(cnn.Linear(3, 4)), cnn.Sequential(cnn.Linear(3, 5))
    with pytest.raises(cnn.ShapeError, match=r"fc1.weight: got weights of shape \(3, 5\), wants \(3, 4\)"):
        small.load(large.parameters)
    with pytest.raises(ValueError, match="bias stand on one side only|fc1.bias"):
        small.load({"fc1.weight": small.parameters["fc1.weight"]})


@pytest.mark.parametrize("steps", [10, 24, 1001])
def test_one_cycle_is_pytorch_s(steps):
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=steps, cycle_momentum=False)
    expected = []
    for _ in range(steps):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert [0.1 * training.one_cycle(step, steps) for step in range(steps)] == pytest.approx(expected, rel=1e-9)
