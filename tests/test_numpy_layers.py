"""Every layer and loss of the NumPy network and its lesson against PyTorch and finite differences, in float64."""

import numpy as np
import pytest
import torch
from numpy_twin import LESSON, numeric_gradient, relative_error, rng, to_numpy, to_torch, twin, weight_to_torch
from torch.nn import functional as F

from helpers import numpy_cnn as cnn
from helpers.numpy_cnn import layers as conv
from helpers.numpy_cnn.layers import BatchNorm, over_images

EXACT = 1e-9

CONVOLUTIONS = [  # (images' shape (N, H, W, C), outputs, kernel, stride, padding)
    ((2, 7, 5, 3), 4, 3, 1, 1),
    ((1, 8, 8, 1), 1, 1, 1, 0),  # batch 1, kernel 1
    ((3, 11, 9, 2), 5, 7, 1, 3),  # kernel 7
    ((2, 9, 12, 3), 4, 3, 2, 1),  # stride 2, where the last pixels of the rows are never reached
    ((2, 10, 7, 3), 2, 7, 2, 0),
    ((9, 5, 5, 2), 3, 2, 3, 0),  # steps longer than the kernel, a last share smaller than the others
    ((17, 6, 6, 3), 4, 1, 2, 0),
    ((2, 4, 4, 2), 3, 3, 1, 2),  # as much padding as there can be
    ((2, 7, 7, 2), 2, 5, 1, 0),
    ((1, 3, 3, 2), 2, 3, 1, 0),  # one window
]


def compare(layer, x):
    generator = rng(1)
    layer.initialise(generator, np.float64)
    for parameter in layer.parameters.values():
        parameter[...] = generator.standard_normal(parameter.shape)  # biases too
    for statistic in layer.state.values():
        statistic[...] = generator.uniform(0.5, 2, statistic.shape)
    module, tx = twin(layer, images=x.ndim == 4).train(layer.training), to_torch(x).requires_grad_()
    before = x.copy()
    y, ty = layer.forward(x), module(tx)
    assert relative_error(y, to_numpy(ty)) < EXACT
    dy = generator.standard_normal(y.shape)
    kept = dy.copy()
    ty.backward(to_torch(dy))
    assert relative_error(layer.backward(dy), to_numpy(tx.grad)) < EXACT
    for name, gradient in layer.gradients.items():
        assert gradient.shape == layer.parameters[name].shape
        assert relative_error(weight_to_torch(gradient).numpy(), getattr(module, name).grad.numpy()) < EXACT
    # On its own a layer leaves what it is given alone.
    assert np.array_equal(x, before) and np.array_equal(dy, kept)
    return module


@pytest.mark.parametrize("shape, outputs, kernel, stride, padding", CONVOLUTIONS)
def test_convolution_and_the_same_without_the_gradient_of_its_input(shape, outputs, kernel, stride, padding):
    x = rng().standard_normal(shape)
    inner, first = (cnn.Conv2d(shape[3], outputs, kernel, stride=stride, padding=padding) for _ in range(2))
    compare(inner, x)
    first.needs_input_gradient = False
    for layer in (inner, first):
        layer.initialise(rng(3), np.float64)
        dx = layer.backward(rng(4).standard_normal(layer.forward(x).shape))
    assert dx is None
    for name in ("weight", "bias"):
        assert relative_error(first.gradients[name], inner.gradients[name]) < EXACT


@pytest.mark.parametrize("block_bytes", [1, 5_000, 1 << 30])
def test_the_size_of_the_blocks_changes_no_number(monkeypatch, block_bytes):
    monkeypatch.setattr(conv, "BLOCK_BYTES", block_bytes)
    for shape, outputs, kernel, stride, padding in CONVOLUTIONS:
        layer = cnn.Conv2d(shape[3], outputs, kernel, stride=stride, padding=padding)
        compare(layer, rng().standard_normal((20, *shape[1:])))


@pytest.mark.parametrize("seed", range(12))
def test_convolution_of_random_shapes(seed):
    draw = rng(seed)
    kernel, stride = map(int, draw.integers(1, (8, 4)))
    padding = int(draw.integers(0, kernel))
    size = max(kernel - 2 * padding, 1) + draw.integers(0, 9, 2)
    shape = (int(draw.integers(1, 12)), *map(int, size), int(draw.integers(1, 5)))
    layer = cnn.Conv2d(shape[3], int(draw.integers(1, 6)), kernel, stride=stride, padding=padding)
    compare(layer, draw.standard_normal(shape))


OTHERS = [
    *(  # odd sizes leave a border
        (cnn.MaxPool2d(kernel), shape)
        for shape, kernel in [((2, 8, 6, 3), 2), ((9, 7, 9, 2), 2), ((3, 10, 11, 1), 3), ((2, 6, 6, 2), 1)]
    ),
    *((cnn.Linear(13, 5), (count, 13)) for count in (1, 64)),
    *((cnn.ReLU(), shape) for shape in [(9, 4, 5, 3), (1, 3)]),
    (cnn.Flatten(), (3, 4, 5, 2)),
]


@pytest.mark.parametrize("layer, shape", OTHERS)
def test_other_layers(layer, shape):
    compare(layer, rng().standard_normal(shape))
    # The first of equals gets a pool's gradient, and ReLU has at 0 the slope of the negative side.
    compare(layer, rng().integers(-1, 2, shape).astype(float))


@pytest.mark.parametrize("shape", [(2, 3), (17, 4), (3, 5, 4, 2), (1, 2, 3, 4), (16, 3, 3, 5)])
@pytest.mark.parametrize("training", [True, False])
def test_batch_norm(shape, training):
    layer = BatchNorm(shape[-1])
    layer.training = training
    module = compare(layer, rng().standard_normal(shape) * 3 + 2)
    assert relative_error(layer.state["mean"], module.running_mean.numpy()) < EXACT
    assert relative_error(layer.state["variance"], module.running_var.numpy()) < EXACT


LAYERS = [
    (cnn.Conv2d(2, 3, 3, padding=1), (2, 5, 4, 2)),
    (cnn.Conv2d(2, 3, 3, stride=2), (2, 6, 5, 2)),
    (cnn.MaxPool2d(2), (2, 5, 4, 2)),
    (cnn.Linear(4, 3), (5, 4)),
    (cnn.ReLU(), (3, 4)),
    (BatchNorm(3), (4, 2, 2, 3)),
    (cnn.Flatten(), (2, 2, 3, 2)),
]


@pytest.mark.parametrize("layer, shape", LAYERS)
def test_finite_differences_agree(layer, shape):
    layer.initialise(rng(2), np.float64)
    x = rng(5).standard_normal(shape)
    dy = rng(6).standard_normal(layer.forward(x).shape)
    dx = layer.backward(dy).copy()
    for ours, array in [(dx, x), *((layer.gradients[name], array) for name, array in layer.parameters.items())]:
        assert relative_error(ours, numeric_gradient(lambda: np.sum(layer.forward(x) * dy), array)) < 1e-7


@pytest.mark.parametrize("batch", [1, 6])
@pytest.mark.parametrize("loss_of", [cnn.softmax_cross_entropy, LESSON["softmax_cross_entropy"]])
def test_softmax_cross_entropy(loss_of, batch):
    logits, labels = rng().standard_normal((batch, 10)) * 5, rng(1).integers(0, 10, batch)
    theirs = torch.from_numpy(logits.copy()).requires_grad_()
    expected = F.cross_entropy(theirs, torch.from_numpy(labels))
    expected.backward()
    loss, gradient = loss_of(logits, labels)
    assert loss == pytest.approx(expected.item(), rel=EXACT)
    assert relative_error(gradient, theirs.grad.numpy()) < EXACT
    assert relative_error(gradient, numeric_gradient(lambda: loss_of(logits, labels)[0], logits)) < 1e-7


def test_softmax_cross_entropy_survives_large_logits():
    loss, gradient = cnn.softmax_cross_entropy(np.array([[1e4, 0.0, -1e4]]), np.array([1]))
    assert loss == pytest.approx(1e4) and np.isfinite(gradient).all()


# The lesson's name for each layer, in notebook 02, with what it needs: forward(x, weight, bias) or forward(x).
SHOWN = [
    ("convolve_loops", "convolve_loops_backward", cnn.Conv2d(3, 4, 3), (2, 6, 8, 3)),
    ("convolve_windows", "convolve_backward", cnn.Conv2d(3, 4, 3), (2, 6, 8, 3)),
    ("convolve_im2col", "convolve_backward", cnn.Conv2d(3, 4, 5), (2, 6, 8, 3)),
    ("linear", "linear_backward", cnn.Linear(6, 4), (3, 6)),
    ("relu", "relu_backward", cnn.ReLU(), (2, 4, 4, 3)),
    ("max_pool", "max_pool_backward", cnn.MaxPool2d(2), (2, 6, 8, 3)),
    ("batch_norm", "batch_norm_backward", BatchNorm(3), (3, 4, 5, 3)),
]


@pytest.mark.parametrize("forward, backward, layer, shape", SHOWN)
def test_the_lesson_computes_what_the_layers_and_pytorch_compute(forward, backward, layer, shape):
    x = rng().integers(-2, 3, shape).astype(float)  # with ties, for the pools
    compare(layer, x)  # sets random parameters, and holds the layer to PyTorch
    y = layer.forward(x)
    dy = rng(4).standard_normal(y.shape)
    theirs = [layer.backward(dy), *layer.gradients.values()]
    parameters = list(layer.parameters.values())
    assert relative_error(LESSON[forward](x, *parameters), y) < EXACT
    for ours, expected in zip(LESSON[backward](dy, x, *parameters), theirs, strict=True):
        assert relative_error(ours, expected) < EXACT


def test_the_lesson_s_average_pool_is_pytorch_s():
    x, dy = rng().standard_normal((2, 6, 8, 3)), rng(1).standard_normal((2, 3, 4, 3))
    theirs = to_torch(x).requires_grad_()
    pooled = F.avg_pool2d(theirs, 2)
    pooled.backward(to_torch(dy))
    assert relative_error(LESSON["average_pool"](x), to_numpy(pooled)) < EXACT
    (dx,) = LESSON["average_pool_backward"](dy, x)
    assert relative_error(dx, to_numpy(theirs.grad)) < EXACT


def test_the_lesson_s_training_step_is_the_network_s():
    network = cnn.Sequential(
        *(cnn.Conv2d(3, 4, 3), cnn.ReLU(), cnn.MaxPool2d(2), cnn.Flatten(), cnn.Linear(36, 10)), dtype=np.float64
    )
    parameters = [array.copy() for array in network.parameters.values()]
    x, labels, optimizer = rng().standard_normal((5, 8, 8, 3)), rng().integers(0, 10, 5), cnn.SGD(0.1)
    for _ in range(3):
        loss, dlogits = cnn.softmax_cross_entropy(network.forward(x), labels)
        network.backward(dlogits)
        optimizer.step(network)
        assert LESSON["training_step"](parameters, x, labels, 0.1) == pytest.approx(loss, rel=EXACT)
    for ours, theirs in zip(parameters, network.parameters.values(), strict=True):
        assert relative_error(ours, theirs) < EXACT


def test_initial_weights_have_the_variance_of_their_scheme():
    linear = cnn.Linear(400, 300).parameters["weight"]
    last = cnn.Linear(400, 300, init="xavier").parameters["weight"]
    window = cnn.Conv2d(64, 128, 5).parameters["weight"]  # He's counts the whole window
    for weight, variance in ((linear, 2 / 400), (last, 2 / 700), (window, 2 / (25 * 64))):
        assert weight.dtype == np.float32
        assert weight.var() == pytest.approx(variance, rel=0.02) and abs(weight.mean()) < 1e-3


def test_an_error_on_any_thread_comes_out_and_the_next_work_goes_on():
    with cnn.use_threads(3):
        shares = over_images(lambda share: (share.start, share.stop), 18)
        assert [image for start, stop in shares for image in range(start, stop)] == list(range(18))
        for bad, _ in shares:
            with pytest.raises(ZeroDivisionError):
                over_images(lambda share, bad=bad: 1 / (share.start - bad), 18)
        assert over_images(lambda share: (share.start, share.stop), 18) == shares
