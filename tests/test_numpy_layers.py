"""Every layer, loss and optimizer of the NumPy network against PyTorch and against finite differences, in float64."""

import numpy as np
import pytest
import torch
from numpy_twin import to_numpy, to_torch, twin, weight_to_torch
from torch.nn import functional as F

from helpers import numpy_cnn as cnn
from helpers.numpy_cnn import conv, stages
from helpers.numpy_cnn.check import numeric_gradient, relative_error
from helpers.numpy_cnn.threads import over_images, use_threads

EXACT = 1e-9

# (images' shape (N, H, W, C), outputs, kernel, stride, padding)
CONVOLUTIONS = [
    ((2, 7, 5, 3), 4, 3, 1, 1),
    ((1, 8, 8, 1), 1, 1, 1, 0),  # batch 1, kernel 1
    ((3, 11, 9, 2), 5, 7, 1, 3),  # kernel 7
    ((2, 9, 12, 3), 4, 3, 2, 1),  # stride 2, where the last pixels of the rows are never reached
    ((2, 10, 7, 3), 2, 7, 2, 0),
    ((1, 6, 13, 2), 3, (3, 5), (2, 1), (0, 2)),  # nothing square
    ((9, 5, 5, 2), 3, 2, 3, 0),  # steps longer than the kernel, a last share smaller than the others
    ((17, 6, 6, 3), 4, 1, 2, 0),
    ((2, 4, 4, 2), 3, 3, 1, 4),  # more padding than kernel: outputs that see nothing but zeros
    ((2, 4, 5, 2), 3, 1, 1, (2, 1)),
    ((3, 5, 6, 2), 2, (1, 4), 1, (3, 0)),
    ((2, 7, 7, 2), 2, 5, 1, 0),
    ((1, 3, 3, 2), 2, 3, 1, 0),  # one window
]
POOLS = [
    ((2, 8, 6, 3), 2, None, 0),
    ((1, 7, 9, 2), 2, None, 0),  # odd sizes: a last row and column outside all windows
    ((3, 9, 8, 2), 3, 2, 1),  # overlapping, padded
    ((9, 5, 11, 1), (2, 3), (1, 2), (1, 0)),
    ((2, 6, 6, 2), 1, 2, 0),
    ((2, 6, 7, 2), 2, 3, 0),  # gaps between the windows
]


def rng(seed=0):
    return np.random.default_rng(seed)


def compare(layer, x, generator=None):
    """Assert that forward, backward and all gradients of ``layer`` are those of its twin, to EXACT."""
    generator = generator or rng(1)
    layer.initialise(generator, np.float64)
    for parameter in layer.parameters.values():
        parameter[...] = generator.standard_normal(parameter.shape)  # biases too
    module, tx = twin(layer, images=x.ndim == 4).train(layer.training), to_torch(x).requires_grad_()
    before = x.copy()
    y, ty = layer.forward(x), module(tx)
    assert y.shape == to_numpy(ty).shape
    assert relative_error(y, to_numpy(ty)) < EXACT
    dy = generator.standard_normal(y.shape)
    kept = dy.copy()
    ty.backward(to_torch(dy))
    dx = layer.backward(dy)
    assert relative_error(dx, to_numpy(tx.grad)) < EXACT
    for name, gradient in layer.gradients.items():
        theirs = getattr(module, name).grad
        assert gradient.shape == layer.parameters[name].shape
        assert relative_error(weight_to_torch(gradient).numpy(), theirs.numpy()) < EXACT
    # On its own a layer leaves what it is given alone.
    assert np.array_equal(x, before) and np.array_equal(dy, kept)
    return module


@pytest.mark.parametrize("shape, outputs, kernel, stride, padding", CONVOLUTIONS)
def test_convolution(shape, outputs, kernel, stride, padding):
    layer = cnn.Conv2d(shape[3], outputs, kernel, stride=stride, padding=padding)
    compare(layer, rng().standard_normal(shape))


@pytest.mark.parametrize("shape, outputs, kernel, stride, padding", CONVOLUTIONS)
def test_a_first_convolution_has_the_same_gradients_without_that_of_its_input(shape, outputs, kernel, stride, padding):
    x = rng().standard_normal(shape)
    first, inner = (cnn.Conv2d(shape[3], outputs, kernel, stride=stride, padding=padding) for _ in range(2))
    for layer in (first, inner):
        layer.initialise(rng(3), np.float64)
    first.needs_input_gradient = False
    dy = rng(4).standard_normal(first.forward(x).shape)
    inner.forward(x)
    assert first.backward(dy) is None
    inner.backward(dy)
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
    kernel, stride, padding = draw.integers(1, 8, 2), draw.integers(1, 4, 2), draw.integers(0, 4, 2)
    size = np.maximum(kernel - 2 * padding, 1) + draw.integers(0, 9, 2)
    shape = (int(draw.integers(1, 12)), *map(int, size), int(draw.integers(1, 5)))
    pairs = (tuple(map(int, pair)) for pair in (kernel, stride, padding))
    kernel, stride, padding = pairs
    layer = cnn.Conv2d(shape[3], int(draw.integers(1, 6)), kernel, stride=stride, padding=padding)
    compare(layer, draw.standard_normal(shape))


@pytest.mark.parametrize("shape, kernel, stride, padding", POOLS)
@pytest.mark.parametrize("kind", [cnn.MaxPool2d, cnn.AvgPool2d])
def test_pooling(kind, shape, kernel, stride, padding):
    compare(kind(kernel, stride=stride, padding=padding), rng().standard_normal(shape))


@pytest.mark.parametrize("shape, kernel, stride, padding", POOLS)
def test_max_pooling_gives_the_first_of_equals_the_gradient(shape, kernel, stride, padding):
    compare(cnn.MaxPool2d(kernel, stride=stride, padding=padding), rng().integers(0, 2, shape).astype(float))


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_fully_connected(batch):
    compare(cnn.Linear(13, 5), rng().standard_normal((batch, 13)))


@pytest.mark.parametrize("shape", [(1, 3), (9, 4, 5, 3), (64, 2, 2, 1)])
@pytest.mark.parametrize("layer", [cnn.ReLU(), cnn.LeakyReLU(), cnn.LeakyReLU(0.3)], ids=repr)
def test_activation(layer, shape):
    x = rng().standard_normal(shape)
    x.flat[0] = 0.0  # the corner: PyTorch gives it the slope of the negative side
    compare(layer, x)


@pytest.mark.parametrize("shape", [(2, 3), (17, 4), (3, 5, 4, 2), (1, 2, 3, 4), (16, 3, 3, 5)])
@pytest.mark.parametrize("training", [True, False])
def test_batch_norm(shape, training):
    layer = cnn.BatchNorm(shape[-1])
    layer.training = training
    module = compare(layer, rng().standard_normal(shape) * 3 + 2)
    assert relative_error(layer.state["mean"], module.running_mean.numpy()) < EXACT
    assert relative_error(layer.state["variance"], module.running_var.numpy()) < EXACT


def test_batch_norm_evaluates_with_the_running_statistics_of_training():
    layer = cnn.BatchNorm(3)
    layer.initialise(rng(), np.float64)
    module = twin(layer).double()
    for step in range(5):
        x = rng(step).standard_normal((4, 3, 3, 3)) + step
        layer.forward(x), module(to_torch(x))
    layer.training = False
    assert relative_error(layer.forward(x), to_numpy(module.eval()(to_torch(x)))) < EXACT


def test_flatten():
    compare(cnn.Flatten(), rng().standard_normal((3, 4, 5, 2)))


def test_dropout_drops_its_share_keeps_the_mean_and_passes_gradients_where_it_kept():
    layer = cnn.Dropout(0.3)
    x = np.ones((64, 1000))
    y = layer.forward(x)
    assert abs(np.mean(y == 0) - 0.3) < 0.01
    assert np.allclose(y[y > 0], 1 / 0.7, rtol=1e-6)
    assert np.array_equal(layer.backward(x), y)
    layer.training = False
    assert np.array_equal(layer.forward(x), x) and np.array_equal(layer.backward(x), x)


LAYERS = [
    (cnn.Conv2d(2, 3, 3, padding=1), (2, 5, 4, 2)),
    (cnn.Conv2d(2, 3, 3, stride=2), (2, 6, 5, 2)),
    (cnn.Conv2d(1, 2, 2, padding=3), (1, 3, 3, 1)),
    (stages.LoopConv2d(2, 3, 3, stride=2, padding=1), (2, 5, 6, 2)),
    (cnn.MaxPool2d(2), (2, 5, 4, 2)),
    (cnn.AvgPool2d(3, stride=2, padding=1), (2, 5, 4, 2)),
    (cnn.Linear(4, 3), (5, 4)),
    (cnn.ReLU(), (3, 4)),
    (cnn.LeakyReLU(0.1), (3, 4)),
    (cnn.BatchNorm(3), (4, 2, 2, 3)),
    (cnn.Flatten(), (2, 2, 3, 2)),
]


@pytest.mark.parametrize("layer, shape", LAYERS, ids=lambda value: str(value))
def test_finite_differences_agree(layer, shape):
    layer.initialise(rng(2), np.float64)
    x = rng(5).standard_normal(shape)
    dy = rng(6).standard_normal(layer.forward(x).shape)

    def loss():
        return float(np.sum(layer.forward(x) * dy))

    layer.forward(x)
    dx = layer.backward(dy).copy()
    gradients = dict(layer.gradients)
    assert relative_error(dx, numeric_gradient(loss, x)) < 1e-7
    for name, parameter in layer.parameters.items():
        assert relative_error(gradients[name], numeric_gradient(loss, parameter)) < 1e-7


@pytest.mark.parametrize("batch", [1, 6])
def test_softmax_cross_entropy(batch):
    logits, labels = rng().standard_normal((batch, 10)) * 5, rng(1).integers(0, 10, batch)
    theirs = torch.from_numpy(logits.copy()).requires_grad_()
    expected = F.cross_entropy(theirs, torch.from_numpy(labels))
    expected.backward()
    loss, gradient = cnn.softmax_cross_entropy(logits, labels)
    assert loss == pytest.approx(expected.item(), rel=EXACT)
    assert relative_error(gradient, theirs.grad.numpy()) < EXACT
    numeric = numeric_gradient(lambda: cnn.softmax_cross_entropy(logits, labels)[0], logits)
    assert relative_error(gradient, numeric) < 1e-7
    assert relative_error(cnn.softmax(logits), torch.softmax(theirs, 1).detach().numpy()) < EXACT


def test_softmax_cross_entropy_survives_large_logits():
    loss, gradient = cnn.softmax_cross_entropy(np.array([[1e4, 0.0, -1e4]]), np.array([1]))
    assert loss == pytest.approx(1e4) and np.isfinite(gradient).all()


OPTIMIZERS = [
    (cnn.SGD(0.1), torch.optim.SGD, {"lr": 0.1}),
    (cnn.SGD(0.1, momentum=0.9), torch.optim.SGD, {"lr": 0.1, "momentum": 0.9}),
    (cnn.SGD(0.1, momentum=0.9, weight_decay=0.01), torch.optim.SGD,
     {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}),
    (cnn.Adam(), torch.optim.Adam, {}),
    (cnn.Adam(0.01, betas=(0.8, 0.95), weight_decay=0.1), torch.optim.Adam,
     {"lr": 0.01, "betas": (0.8, 0.95), "weight_decay": 0.1}),
    (cnn.RMSprop(), torch.optim.RMSprop, {}),
    (cnn.RMSprop(0.001, alpha=0.9), torch.optim.RMSprop, {"lr": 0.001, "alpha": 0.9}),
    (cnn.Adagrad(), torch.optim.Adagrad, {}),
]  # fmt: skip


@pytest.mark.parametrize("optimizer, theirs, options", OPTIMIZERS)
def test_optimizers_step_as_pytorch_does(optimizer, theirs, options):
    layer = cnn.Linear(5, 4).initialise(rng(), np.float64)
    module = twin(layer)
    reference = theirs(module.parameters(), **options)
    for step in range(5):
        layer.gradients = {name: rng(step).standard_normal(w.shape) for name, w in layer.parameters.items()}
        for name, gradient in layer.gradients.items():
            getattr(module, name).grad = weight_to_torch(gradient)
        optimizer.step(layer)
        reference.step()
        for name, parameter in layer.parameters.items():
            expected = getattr(module, name).detach().numpy()
            assert relative_error(weight_to_torch(parameter).numpy(), expected) < EXACT


def test_all_stages_of_the_lesson_compute_the_same_convolution():
    for stride in (1, 2):
        x, layer = rng().standard_normal((2, 9, 8, 3)), cnn.Conv2d(3, 4, 3, stride=stride)
        layer.initialise(rng(1), np.float64)
        weight, bias = layer.parameters["weight"], rng(2).standard_normal(4)
        layer.parameters["bias"][...] = bias
        expected = to_numpy(F.conv2d(to_torch(x), weight_to_torch(weight), torch.from_numpy(bias), stride))
        for stage in (stages.convolve_loops, stages.convolve_windows, stages.convolve_im2col):
            assert relative_error(stage(x, weight, bias, stride), expected) < EXACT
        assert relative_error(layer.forward(x), expected) < EXACT


def test_the_loop_layer_is_the_fast_layer():
    x, fast, slow = rng().standard_normal((2, 6, 5, 3)), cnn.Conv2d(3, 4, 3, stride=2, padding=1), None
    slow = stages.LoopConv2d(3, 4, 3, stride=2, padding=1)
    for layer in (fast, slow):
        layer.initialise(rng(1), np.float64)
    y = fast.forward(x)
    assert relative_error(slow.forward(x), y) < EXACT
    assert relative_error(slow.backward(y), fast.backward(y)) < EXACT
    for name in ("weight", "bias"):
        assert relative_error(slow.gradients[name], fast.gradients[name]) < EXACT


@pytest.mark.parametrize("count", [2, 3, 8])
def test_any_number_of_threads_gives_the_same_bits(count):
    results = []
    for threads in (1, count):
        with use_threads(threads):
            layer = cnn.Conv2d(8, 16, 3, padding=1)
            x = rng().standard_normal((37, 12, 12, 8)).astype(np.float32)
            y = layer.forward(x)
            results.append((y, layer.backward(y), layer.gradients["weight"], layer.gradients["bias"]))
    assert all(np.array_equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize("scheme, shape, variance", [("he", (400, 300), 2 / 400), ("xavier", (400, 300), 2 / 700)])
def test_initial_weights_have_the_variance_of_their_scheme(scheme, shape, variance):
    weight = cnn.Linear(*shape, init=scheme).parameters["weight"]
    assert weight.dtype == np.float32
    assert weight.var() == pytest.approx(variance, rel=0.02) and abs(weight.mean()) < 1e-3


def test_he_weights_of_a_convolution_count_the_whole_window():
    weight = cnn.Conv2d(64, 128, 5).parameters["weight"]
    assert weight.var() == pytest.approx(2 / (25 * 64), rel=0.02)


def test_an_error_on_any_thread_comes_out_and_the_next_work_goes_on():
    with use_threads(3):
        shares = over_images(lambda share: (share.start, share.stop), 18)
        assert [image for start, stop in shares for image in range(start, stop)] == list(range(18))
        for bad, _ in shares:
            with pytest.raises(ZeroDivisionError):
                over_images(lambda share, bad=bad: 1 / (share.start - bad), 18)
        assert over_images(lambda share: (share.start, share.stop), 18) == shares
    with pytest.raises(ValueError, match="at least one thread, got 0"), use_threads(0):
        pass
