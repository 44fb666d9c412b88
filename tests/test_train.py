"""Training: the same numbers as a plain loop, at every schedule, across kills, and a clear end when it breaks."""

import copy
import random
import time
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from taught import taught
from torch import nn
from warm import COPIES

from helpers.data import Split, channel_statistics, load
from helpers.models import MODELS, build, structure_hash
from helpers.training import Experiment, Trainer, criterion, predict, training_split
from helpers.training.loop import fit

SMALL = Experiment(dataset="digits", model="r4", train_size=128, batch_size=32, epochs=2, optimizer="SGD", lr=0.05)


@pytest.fixture
def data(monkeypatch):
    """Return the digits, and compute in float64: in float32 two ways of computing Adam's steps soon drift apart."""
    default, digits = torch.get_default_dtype(), copy.copy(load("digits"))
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    digits._statistics = channel_statistics(digits.train.images)
    torch.set_default_dtype(torch.float64)
    yield digits
    torch.set_default_dtype(default)


def train(experiment, **options):
    return fit(experiment, load("digits"), device="cpu", progress=False, **options)


def of_classes(*numbers):
    labels = torch.arange(len(numbers)).repeat_interleave(torch.tensor(numbers))
    return Split(torch.zeros(len(labels), 3, 1, 1, dtype=torch.uint8), labels, torch.arange(len(labels)))


def plain_loop(experiment, data, epochs):
    """Return the losses of the loop that a textbook would write, given the same initial weights, order and shares."""
    torch.manual_seed(experiment.seed)
    model = build(experiment.model, classes=len(data.classes))
    optimizer = getattr(torch.optim, experiment.optimizer)(model.parameters(), lr=experiment.lr)
    split, losses, a = training_split(experiment, data), [], experiment.mixup
    pictures = (split.images / 255.0 - data.mean.view(3, 1, 1)) / data.std.view(3, 1, 1)
    targets = nn.functional.one_hot(split.labels, 10).float()
    for epoch in range(1, epochs + 1):
        states = [int(state) for state in np.random.SeedSequence([experiment.seed, epoch]).generate_state(4)]
        order = torch.randperm(len(split), generator=torch.Generator().manual_seed(states[0]))
        draws = np.random.default_rng(states[3])
        shares = draws.beta(a, a, 4).tolist() if a else [1.0] * 4
        for share, batch in zip(shares, order.split(experiment.batch_size), strict=True):
            x, y = ((share * t[batch] + (1 - share) * t[batch].flip(0)) for t in (pictures, targets))
            loss = nn.functional.cross_entropy(model(x), y)  # linear in its targets
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return losses


@pytest.mark.parametrize(
    ("name", "lr", "mixup"),
    [("SGD", 0.01, 0), ("Adam", 0.01, 0), ("RMSprop", 1e-4, 0), ("Adagrad", 0.01, 0), ("SGD", 0.05, 0.3)],
)
def test_the_losses_are_those_of_a_plain_loop(name, lr, mixup, data):
    experiment = SMALL.but(optimizer=name, lr=lr, mixup=mixup, seed=3)
    fitted = fit(experiment, data, device="cpu", progress=False)
    # Rounding of 1e-16, times the roots of the numbers in a sum and of the steps, with room for Adam's division.
    assert fitted.losses == pytest.approx(plain_loop(experiment, data, 2), rel=1e-10)


def test_notebook_03_writes_network_and_training_out(data):
    experiment = SMALL.but(model="r2", model_options={"dropout": 0.0}, batch_size=64)
    shown = taught("03", "convolution", "printed_network", "train")
    network = shown.printed_network()
    torch.manual_seed(experiment.seed)
    first = build("r2", dropout=0.0).state_dict()
    network.load_state_dict(dict(zip(network.state_dict(), first.values(), strict=True)))
    split = training_split(experiment, data)
    images = (split.images / 255.0 - data.mean.view(3, 1, 1)) / data.std.view(3, 1, 1)
    seeds = [int(np.random.SeedSequence([experiment.seed, epoch]).generate_state(1)[0]) for epoch in (1, 2)]
    orders = [torch.randperm(128, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    fitted = fit(experiment, data, device="cpu", progress=False)
    assert fitted.losses == pytest.approx(shown.train(network, images, split.labels, orders, lr=0.05), rel=1e-10)
    for ours, theirs in zip(network.state_dict().values(), fitted.model.state_dict().values(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_kl_divergence_is_cross_entropy_in_value_and_gradient():
    labels = torch.arange(32) % 10
    gradients = []
    for name in ("CrossEntropyLoss", "KLDivLoss"):
        logits = torch.randn(32, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
        value = criterion(Experiment(loss=name), 10, of_classes(*[1] * 10))(logits, labels)
        value.backward()
        gradients.append((value.item(), logits.grad))
    assert gradients[0][0] == pytest.approx(gradients[1][0], rel=1e-12)
    torch.testing.assert_close(gradients[0][1], gradients[1][1])


def one_cycle(step, steps, start=0.05 / 25, end=0.05 / 25e4):
    """Return the rate of a step by the definition: cosines up to 0.05 in the first three tenths, then down."""
    top = 0.3 * steps - 1
    low, share = (start, step / top) if step <= top else (end, (steps - 1 - step) / (steps - 1 - top))
    return low + (0.05 - low) * (1 - np.cos(np.pi * share)) / 2


@pytest.mark.parametrize(
    ("schedule", "options", "oracle"),
    [
        ("StepLR", {"step_size": 1, "gamma": 0.7}, lambda e: 0.05 * 0.7**e),
        ("CosineAnnealingLR", {}, lambda e: 0.05 * (1 + np.cos(np.pi * e / 4)) / 2),
        ("OneCycleLR", {}, lambda e: one_cycle(4 * e, 16)),  # it spans exactly all steps
    ],
)
def test_schedules_follow_their_formula(schedule, options, oracle):
    history = train(SMALL.but(schedule=schedule, schedule_options=options, epochs=4)).history
    assert history["lr"] == pytest.approx([oracle(e) for e in range(4)])


def test_early_stopping_keeps_the_best_weights():
    data, fitted = load("digits"), train(SMALL.but(epochs=30, patience=2, lr=0.2))
    accuracies = fitted.history["validation_accuracy"]
    assert fitted.best_epoch == int(np.argmax(accuracies)) + 1 == len(accuracies) - 2 < 28
    guesses = predict(fitted.model, data.validation, data.mean, data.std).argmax(1)
    assert (guesses == data.validation.labels).float().mean().item() == pytest.approx(max(accuracies))


@pytest.mark.parametrize("averaging", [0, 0.9])
def test_divergence_ends_the_run_and_says_where(averaging):
    fitted = train(SMALL.but(lr=1e30, averaging=averaging))
    assert "epoch 1" in fitted.diverged and "step" in fitted.diverged


def test_compiled_training_gives_the_same_losses(tmp_path, monkeypatch):
    layers = (nn.Conv2d(3, 4, 3, stride=4), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(256, 10))
    monkeypatch.setitem(MODELS, "tiny", lambda classes: nn.Sequential(*copy.deepcopy(layers)))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))  # the usual one may hold code for other instructions
    eager, compiled = (train(SMALL.but(model="tiny", epochs=1), compiled=compiled) for compiled in (False, True))
    assert compiled.losses == pytest.approx(eager.losses, rel=1e-3)


KILLED = SMALL.but(model="r1", augmentation="crop:4", epochs=8, optimizer="Adam", lr=1e-3, patience=9)


def test_kills_at_random_moments_lose_nothing(tmp_path):
    draw, path, names = random.Random(0), tmp_path / "checkpoint.pt", ("train", "validation", "classes", "mean", "std")
    digits = SimpleNamespace(**{name: getattr(load("digits"), name) for name in names})
    training = partial(fit, KILLED, digits, device="cpu", progress=False)
    for _ in range(4):
        before = path.exists() and path.stat().st_mtime_ns
        child = COPIES.Process(target=training, kwargs={"checkpoint_path": path})
        child.start()
        while child.is_alive() and (path.exists() and path.stat().st_mtime_ns) == before:
            time.sleep(0.01)
        time.sleep(draw.uniform(0, 0.2))  # within or after another epoch
        child.kill()
        child.join()
        assert child.exitcode in (0, -9)
    same_run(training(checkpoint_path=path), training())


def same_run(one, other):
    assert one.losses == other.losses and one.best_epoch == other.best_epoch
    assert {**one.history, "seconds": None} == {**other.history, "seconds": None}
    assert same_weights(one.model.state_dict(), other.model.state_dict())


def same_weights(one, other):
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize("other", [b"half a check", None])
def test_a_checkpoint_that_is_damaged_or_of_another_structure_is_set_aside(tmp_path, capsys, other):
    path = tmp_path / "checkpoint.pt"
    train(SMALL.but(epochs=1, model="r1"), checkpoint_path=path)
    if other:
        path.write_bytes(other)
    before = path.read_bytes()
    assert len(train(SMALL, checkpoint_path=path).history["epoch"]) == 2
    assert [p.read_bytes() for p in tmp_path.glob("*.aside-*")] == [before]
    message = capsys.readouterr().err
    assert "kept as" in message and ("another structure" in message) == (other is None)
    assert torch.load(path, weights_only=True)["structure"] == structure_hash(build("r4"))


def watched(monkeypatch):
    """Return lists that the pictures and labels, and the weights, of every step are put into, as training goes on."""
    seen, weights, step = [], [], Trainer._step

    def watch(trainer, images, labels, share):
        seen.append((images.clone(), labels.clone()))
        result = step(trainer, images, labels, share)
        weights.append({name: value.clone() for name, value in trainer.model.state_dict().items()})
        return result

    monkeypatch.setattr(Trainer, "_step", watch)
    return seen, weights


def test_the_result_is_the_moving_average_of_the_weights_of_all_steps(monkeypatch):
    _, weights = watched(monkeypatch)
    result = train(SMALL.but(averaging=0.8, epochs=3)).model.state_dict()
    # Written out: 0.8^11 w1 + 0.2 (0.8^10 w2 + ... + 0.8 w11 + w12)
    shares = [0.8**11] + [0.2 * 0.8 ** (12 - n) for n in range(2, 13)]
    for name, value in result.items():
        if value.is_floating_point():
            mean = sum(share * state[name].double() for share, state in zip(shares, weights, strict=True))
            torch.testing.assert_close(value.double(), mean, rtol=1e-5, atol=1e-6)
    for name in ("conv1.weight", "bn2.running_mean", "fc1_bn.running_var"):  # they do differ from where they ended
        assert not torch.allclose(result[name], weights[-1][name], rtol=1e-3)


def test_averaging_leaves_training_as_it_is(monkeypatch):
    experiment = SMALL.but(model="r2", augmentation="crop:4 hflip:0.5", schedule="OneCycleLR")
    plain = train(experiment)
    _, weights = watched(monkeypatch)
    averaged = train(experiment.but(averaging=0.9))
    assert averaged.losses == plain.losses
    for name in set(plain.history) - {"seconds"}:
        assert averaged.history[name] == plain.history[name], name
    assert same_weights(plain.model.state_dict(), weights[-1])
    assert set(averaged.history) - set(plain.history) == {"averaged_validation_loss", "averaged_validation_accuracy"}
    assert averaged.history["averaged_validation_loss"] != averaged.history["validation_loss"]
    data = load("digits")
    logits, labels = predict(averaged.model, data.validation, data.mean, data.std), data.validation.labels
    loss, right = nn.functional.cross_entropy(logits, labels), (logits.argmax(1) == labels).float()
    assert averaged.history["averaged_validation_loss"][-1] == pytest.approx(loss.item())
    assert averaged.history["averaged_validation_accuracy"][-1] == pytest.approx(right.mean().item())
    assert len(averaged.history["averaged_validation_loss"]) == 2


AVERAGED = {"averaging": 0.9, "optimizer": "Adam"}


@pytest.mark.parametrize("chosen", [AVERAGED, AVERAGED | {"patience": 9}, {"optimizer": "Muon"}])
def test_a_run_that_was_killed_goes_on_as_if_nothing_had_happened(tmp_path, killed, chosen):
    experiment = SMALL.but(epochs=4, lr=0.01, **chosen)
    whole, path = train(experiment), tmp_path / "checkpoint.pt"
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            train(experiment, checkpoint_path=path)
    killed()
    same_run(train(experiment, checkpoint_path=path), whole)


def test_patience_judges_the_average(monkeypatch):
    # The trained weights get better all the time, their average is best after two epochs.
    accuracies = {"": iter([0.1, 0.2, 0.3, 0.4, 0.5]), "averaged_": iter([0.1, 0.5, 0.3, 0.5, 0.2])}
    averages = []

    def scripted(trainer, model, prefix):
        if prefix:
            averages.append({name: value.clone() for name, value in model.state_dict().items()})
        return {f"{prefix}validation_loss": 1.0, f"{prefix}validation_accuracy": next(accuracies[prefix])}

    monkeypatch.setattr(Trainer, "_validate", scripted)
    fitted = train(SMALL.but(averaging=0.9, patience=2, epochs=5))
    assert fitted.best_epoch == 2 and len(fitted.history["epoch"]) == 4
    assert same_weights(averages[1], fitted.model.state_dict()) and not same_weights(averages[1], averages[3])


def test_mixup_leaves_order_and_augmentation_as_they_are(monkeypatch):
    seen, _ = watched(monkeypatch)
    for mixup in (0.0, 0.3):
        train(SMALL.but(mixup=mixup, augmentation="crop:2", epochs=1))
    for (images, labels), (others, same) in zip(seen[:4], seen[4:], strict=True):
        assert torch.equal(images, others) and torch.equal(labels, same)


def test_an_alternating_flip_shows_each_picture_from_both_sides_in_turn(monkeypatch):
    experiment, data = SMALL.but(augmentation="altflip", epochs=3, batch_size=128), load("digits")
    seen, _ = watched(monkeypatch)
    fit(experiment, data, device="cpu", progress=False)
    pictures = training_split(experiment, data).images
    mirrored = []
    for number, (images, _) in enumerate(seen, start=1):
        seed = int(np.random.SeedSequence([experiment.seed, number]).generate_state(1)[0])
        order = torch.randperm(128, generator=torch.Generator().manual_seed(seed))
        back = torch.empty_like(images)
        back[order] = images
        plain, flipped = ((back == side).flatten(1).all(1) for side in (pictures, pictures.flip(3)))
        assert (plain | flipped).all()
        mirrored.append(flipped & ~plain)
    symmetric = (pictures == pictures.flip(3)).flatten(1).all(1)
    assert torch.equal(mirrored[0], mirrored[2]) and torch.equal(mirrored[0][~symmetric], ~mirrored[1][~symmetric])
    assert 0.35 < mirrored[0].float().mean() < 0.65


def test_balanced_weights_are_sklearns_for_the_images_that_are_learned_from():
    torch.manual_seed(0)
    learned = of_classes(6, 3, 1)
    weights = torch.tensor(compute_class_weight("balanced", classes=np.arange(3), y=learned.labels.numpy())).float()
    logits, wanted = torch.randn(7, 3), torch.tensor([0, 1, 2, 2, 1, 0, 0])
    balanced = criterion(Experiment(class_weights="balanced"), 3, learned)
    reference = nn.functional.cross_entropy(logits, wanted, weights)
    plain = criterion(Experiment(), 3, learned)(logits, wanted)
    torch.testing.assert_close(balanced(logits, wanted), reference)
    assert not torch.isclose(plain, reference)


@pytest.mark.parametrize(("options", "epochs", "pays"), [({}, 2, 0), ({}, 10_000, 1), ({"pool": "max"}, 10_000, 0)])
def test_on_a_cpu_long_runs_are_compiled_unless_a_layer_is_slowed_by_it(options, epochs, pays):
    experiment = SMALL.but(model="r2", model_options=options, epochs=epochs, train_size=128)
    trainer = Trainer(experiment, load("digits"), torch.device("cpu"), False)
    # 11.4 million multiply-adds an image, 128 images: 4e12 is reached within 2,800 epochs.
    assert trainer._pays_to_compile() == pays
