"""Training the NumPy network: it learns, tells how it goes, and survives being killed at any moment."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from helpers import numpy_cnn as cnn
from helpers.numpy_cnn import training
from helpers.numpy_cnn.layers import BatchNorm
from helpers.settings import ROOT

CLASSES = 4
PREPARE = cnn.normaliser([0.3] * 3, [0.2] * 3)


def pictures(count, seed=0):
    """Return uint8 pictures, of noise with one brighter quadrant, which is the class."""
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, CLASSES, count)
    images = draw.integers(0, 100, (count, 8, 8, 3), np.uint8)
    for image, label in zip(images, labels, strict=True):
        row, column = divmod(int(label), 2)
        image[4 * row : 4 * row + 4, 4 * column : 4 * column + 4] += 60
    return cnn.Pictures(images, labels)


def network(seed=0):
    body = (cnn.Conv2d(3, 6, 3, padding=1), BatchNorm(6), cnn.ReLU(), cnn.MaxPool2d(2), cnn.Flatten())
    return cnn.Sequential(*body, cnn.Linear(96, CLASSES, init="xavier"), seed=seed)


def train(seed=0, optimizer=None, **options):
    """Return the network and, by name, what fit returns of a small training with all that is random switched on."""
    net = network(seed)
    chosen = {"epochs": 2, "batch_size": 16, "augment": training.mirror(0.5), "schedule": training.one_cycle}
    chosen |= {"progress": False, "seed": seed, "prepare": PREPARE} | options
    found = cnn.fit(net, optimizer or cnn.Adam(0.01), pictures(200), pictures(60, 1), **chosen)
    return net, dict(zip(("history", "losses", "diverged"), found, strict=True))


def same(a, b):
    """Assert that two trainings ended with the same weights, statistics and figures, to the last bit."""
    for name, array in {**a[0].parameters, **a[0].state}.items():
        assert np.array_equal(array, {**b[0].parameters, **b[0].state}[name]), name
    assert a[1]["losses"] == b[1]["losses"]
    for name, values in a[1]["history"].items():
        assert name == "seconds" or values == b[1]["history"][name], name


def test_it_learns_and_tells_how_it_went():
    net, result = train(epochs=6, schedule=training.constant, augment=None)
    history = result["history"]
    assert list(history) == list(training.HISTORY)
    assert all(len(values) == 6 for values in history.values()) and history["epoch"] == [1, 2, 3, 4, 5, 6]
    assert len(result["losses"]) == 6 * (200 // 16) and result["diverged"] is None
    assert history["validation_accuracy"][-1] > 0.9 and history["train_loss"][-1] < history["train_loss"][0]
    assert history["train_loss"][1] == pytest.approx(np.mean(result["losses"][12:24]))
    data = pictures(60, 1)
    logits = training.predict(net, data.images, PREPARE)
    assert history["validation_accuracy"][-1] == np.mean(logits.argmax(axis=1) == data.labels)
    loss = cnn.softmax_cross_entropy(logits, data.labels)[0]
    assert history["validation_loss"][-1] == pytest.approx(loss, rel=1e-5)
    # The size of the batches makes no difference in evaluation mode.
    assert np.allclose(training.predict(net, data.images, PREPARE, batch_size=7), logits, atol=1e-5)


def test_every_seed_and_epoch_has_an_order_of_its_own_and_every_step_its_draws():
    orders = [tuple(training.order(seed, epoch, 50)) for seed in (0, 1) for epoch in (0, 1)]
    assert len(set(orders)) == 4 and all(sorted(order) == list(range(50)) for order in orders)
    draws = []

    def augment(images, generator):
        draws.append(generator.random())
        return images

    for seed in (0, 0, 1):
        train(augment=augment, seed=seed)
    assert len(draws) == 72 and draws[24:48] == draws[:24] and len(set(draws)) == 48


def test_the_losses_are_those_of_a_plain_loop():
    data, net, optimizer = pictures(50), network(), cnn.SGD(0.1)
    expected, recognised = [], []
    for epoch in range(2):
        order = training.order(0, epoch, 50)
        for start in range(0, 48, 16):
            batch = order[start : start + 16]
            logits = net.train().forward(PREPARE(data.images[batch]))
            loss, dlogits = cnn.softmax_cross_entropy(logits, data.labels[batch])
            net.backward(dlogits)
            optimizer.step(net)
            expected.append(loss)
            recognised.append(np.mean(logits.argmax(axis=1) == data.labels[batch]))
    chosen = {"prepare": PREPARE, "epochs": 2, "batch_size": 16, "progress": False}
    history, losses, _ = cnn.fit(network(), cnn.SGD(0.1), data, data, **chosen)
    assert losses == expected
    assert history["train_accuracy"] == pytest.approx([np.mean(recognised[:3]), np.mean(recognised[3:])])


def test_the_schedule_sets_the_learning_rate_and_leaves_the_optimizer_as_it_was():
    optimizer, seen = cnn.SGD(0.5), []

    def schedule(*step):
        seen.append(step)
        return training.one_cycle(*step)

    _, result = train(optimizer=optimizer, schedule=schedule)
    assert optimizer.lr == 0.5
    assert seen == [(step, 24) for step in range(24)]
    assert result["history"]["lr"] == [0.5 * training.one_cycle(step, 24) for step in (11, 23)]


@pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid value")  # which is what this is about
def test_a_training_that_diverges_ends_and_says_where():
    net, result = train(optimizer=cnn.SGD(1e38), schedule=training.constant)
    assert "the loss was" in result["diverged"] and "of epoch 1" in result["diverged"]
    assert len(result["losses"]) < 24 and np.isfinite(result["losses"]).all()


def with_(act):
    """Return the usual augmentation, which calls ``act`` with the number of the call before."""
    mirror, calls = training.mirror(0.5), iter(range(1_000))

    def augment(images, generator):
        act(next(calls))
        return mirror(images, generator)

    return augment


@pytest.mark.parametrize("make", [lambda: cnn.SGD(0.1, momentum=0.9), lambda: cnn.Adam(0.01)], ids=["SGD", "Adam"])
def test_a_training_interrupted_between_any_two_steps_resumes_to_the_same_bits(tmp_path, monkeypatch, make):
    monkeypatch.setattr(training, "CHECKPOINT_EVERY", 1)
    whole = train(optimizer=make())
    for last in (1, 11, 12, 13, 23):
        path = tmp_path / f"{last}.npz"

        def interrupt(step, last=last):
            if step == last:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            train(optimizer=make(), checkpoint=path, augment=with_(interrupt))
        taken = []
        same(train(optimizer=make(), checkpoint=path, augment=with_(taken.append)), whole)
        assert len(taken) == 24 - last  # it went on, and did not begin anew
    same(train(optimizer=make(), checkpoint=path, augment=with_(interrupt)), whole)  # finished: no further step


def test_a_checkpoint_of_another_training_or_a_damaged_one_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "training.npz"
    train(checkpoint=path)
    with pytest.raises(ValueError, match=r"another training's: its batch_size was 16, now it is 32"):
        train(checkpoint=path, batch_size=32)
    with pytest.raises(ValueError, match="its optimizer was .*Adam.*, now it is .*SGD"):
        train(checkpoint=path, optimizer=cnn.SGD(0.01))
    content = path.read_bytes()
    code = tmp_path / "code.npz"  # an object, which only unpickling could read
    np.savez(code, about=np.array({"an": "object"}, dtype=object), allow_pickle=True)
    for damaged in (content[: len(content) // 2], b"", b"not a checkpoint", code.read_bytes()):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="cannot be read .* move it away to start anew"):
            train(checkpoint=path)
        assert path.read_bytes() == damaged


def test_mirror_shows_its_share_of_the_pictures_turned_and_whole():
    images = pictures(400).images
    mirrored = training.mirror(0.25)(images, np.random.default_rng(0))
    flipped = [np.array_equal(a, b[:, ::-1]) for a, b in zip(mirrored, images, strict=True)]
    alone = [np.array_equal(a, b) for a, b in zip(mirrored, images, strict=True)]
    assert all(a or b for a, b in zip(flipped, alone, strict=True)) and 70 < sum(flipped) < 130


MEMORY = """
from pathlib import Path
import numpy as np
from helpers import numpy_cnn as cnn

images = np.random.default_rng(0).integers(0, 256, (45_000, 32, 32, 3), np.uint8)
train, validation = (cnn.Pictures(images[:count], np.zeros(count, int)) for count in (192, 200))
cnn.fit(cnn.NETWORKS["r3"](), cnn.SGD(0.01), train, validation, epochs=1, progress=False,
        prepare=cnn.normaliser([0.5] * 3, [0.2] * 3))
print(next(line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells the peak memory in this way")
def test_r3_trains_on_all_of_cifar10_in_little_memory():
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", MEMORY], env=environment, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 600_000  # kilobytes, with the 45,000 pictures; 1.5 GB are allowed
