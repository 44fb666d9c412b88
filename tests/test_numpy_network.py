"""Whole NumPy networks: the chain rule, the same course of training as PyTorch, and errors that help."""

import numpy as np
import pytest
import torch
from numpy_twin import numeric_gradient, relative_error, rng, to_numpy, to_torch, twin, weight_to_torch
from torch.nn import functional as F

from helpers import numpy_cnn as cnn
from helpers.numpy_cnn import training
from helpers.numpy_cnn.layers import BatchNorm


def everything(dtype=np.float64, **options):
    return cnn.Sequential(
        cnn.Conv2d(3, 4, 3, padding=1),
        cnn.ReLU(),  # may overwrite what the convolution gave
        BatchNorm(4),  # not straight behind a bias, whose gradient would be zero, and its rounding all there is
        cnn.MaxPool2d(2),
        cnn.ReLU(),  # behind a layer that needs its output
        cnn.Conv2d(4, 6, 3, stride=2),
        cnn.MaxPool2d(2),
        cnn.Flatten(),
        cnn.Linear(24, 8),
        cnn.ReLU(),
        BatchNorm(8),
        cnn.Linear(8, 5, init="xavier"),
        dtype=dtype,
        **options,
    )


def test_a_network_s_gradients_are_autograd_s_and_finite_differences():
    network = everything(seed=3)
    network.layers[0].needs_input_gradient = True
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


def assert_same_losses(network, ours, theirs, steps, shape, error):
    module = twin(network)
    reference = theirs(module.parameters())
    for step in range(steps):
        x = rng(step).standard_normal(shape).astype(network.parameters["conv1.weight"].dtype)
        labels = rng(step).integers(0, 5, len(x))
        expected = F.cross_entropy(module(to_torch(x)), torch.from_numpy(labels))
        reference.zero_grad()
        expected.backward()
        reference.step()
        loss, dlogits = cnn.softmax_cross_entropy(network.train().forward(x), labels)
        network.backward(dlogits)
        ours.step(network)
        assert loss == pytest.approx(expected.item(), rel=error)


OPTIMIZERS = {
    "sgd": (cnn.SGD(0.05), lambda weights: torch.optim.SGD(weights, lr=0.05)),
    "momentum": (cnn.SGD(0.05, momentum=0.9), lambda weights: torch.optim.SGD(weights, lr=0.05, momentum=0.9)),
    "adam": (cnn.Adam(1e-3), torch.optim.Adam),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_steps_of_every_optimizer_have_pytorch_s_losses(name):
    assert_same_losses(everything(seed=1), *OPTIMIZERS[name], 20, (9, 20, 18, 3), 1e-8)


@pytest.mark.parametrize("name", ["r3", "r1", "r3-norm"])
@pytest.mark.parametrize("dtype, steps, error", [(np.float64, 20, 1e-8), (np.float32, 3, 1e-4)])
def test_the_reports_networks_train_as_pytorch_does(name, dtype, steps, error):
    network, ours = cnn.NETWORKS[name](seed=2, dtype=dtype), cnn.SGD(0.01, momentum=0.9)
    assert_same_losses(network, ours, lambda w: torch.optim.SGD(w, lr=0.01, momentum=0.9), steps, (5, 32, 32, 3), error)


@pytest.mark.parametrize(
    "network", [everything(np.float32), cnn.Sequential(cnn.Flatten(), cnn.ReLU(), cnn.Linear(1080, 5))]
)
def test_a_network_leaves_its_input_alone_and_gives_new_logits(network):
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
    for threads in (1, 2, 3, 8):
        with cnn.use_threads(threads):
            network, optimizer = cnn.NETWORKS["r3-norm"](seed=1), cnn.Adam(1e-3)
            for step in range(2):
                x = rng(step).standard_normal((21, 32, 32, 3)).astype(np.float32)
                _, dlogits = cnn.softmax_cross_entropy(network.forward(x), rng(step).integers(0, 10, 21))
                network.backward(dlogits)
                optimizer.step(network)
            weights.append(network.parameters)
    for other in weights[1:]:
        assert all(np.array_equal(weights[0][name], other[name]) for name in other)


@pytest.mark.parametrize(
    "layers, shape, message",
    [
        ((cnn.Conv2d(3, 4, 3), cnn.Conv2d(8, 4, 3)), (9, 9, 3), r"conv2 .* got .*\(N, 7, 7, 4\), .* last, 8 of them"),
        ((cnn.Conv2d(3, 4, 3),), (3, 9, 9), r"conv1 \(Conv2d\): got .*\(N, 3, 9, 9\), wants \(N, H, W, 3\)"),
        ((cnn.Conv2d(3, 4, 7),), (6, 9, 3), r"conv1 .* got .*\(N, 6, 9, 3\), wants images of at least 7 pixels"),
        ((cnn.MaxPool2d(2), cnn.MaxPool2d(4)), (6, 9, 3), r"pool2 .* got .*\(N, 3, 4, 3\), .* of at least 4 pixels"),
        ((cnn.Flatten(), cnn.Linear(100, 10)), (4, 4, 3), r"fc1 .* got .*\(N, 48\), wants \(N, 100\)"),
        ((cnn.Linear(48, 10),), (4, 4, 3), r"fc1 .* got .*\(N, 4, 4, 3\), .* images go through a Flatten"),
        ((BatchNorm(5),), (4, 4, 3), r"bn1 .* got .*\(N, 4, 4, 3\), wants 5 channels in the last axis"),
    ],
)
def test_shape_errors_name_the_layer_what_it_got_and_what_it_wants(layers, shape, message):
    with pytest.raises(ValueError, match=message):
        cnn.Sequential(*layers).forward(np.zeros((2, *shape), np.float32))


def test_other_misuse_is_explained():
    with pytest.raises(TypeError, match=r"conv1 \(Conv2d\): got float64 numbers, wants float32"):
        cnn.Sequential(cnn.Conv2d(3, 4, 3)).forward(np.zeros((1, 5, 5, 3)))
    with pytest.raises(ValueError, match="padding < kernel, got padding=3, kernel=3"):
        cnn.Conv2d(3, 4, 3, padding=3)


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
