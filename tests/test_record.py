"""A record holds what the run was, gives it back unchanged, and is never taken for another."""

import json

import numpy as np
import pytest
import torch
from sklearn.calibration import calibration_curve
from sklearn.metrics import confusion_matrix

from helpers.data import load
from helpers.models import build
from helpers.record import Run, load_snapshot, load_weights, read_run, record_path, train_run, write_run
from helpers.record import run as run_module
from helpers.record.recorder import BINS, expected_calibration_error, reliability, thin
from helpers.settings import DATA
from helpers.training import Experiment, experiment, fingerprint, normalise, predict

SMALL = Experiment(dataset="digits", model="r4", train_size=256, batch_size=64, epochs=2, flagship=True)


@pytest.fixture(scope="module", autouse=True)
def elsewhere(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("data")
        patch.setattr(run_module, "runs_folder", lambda: folder / "runs")
        yield folder


@pytest.fixture(scope="module")
def finished(elsewhere):
    return train_run(SMALL, device="cpu", progress=False)


@pytest.fixture
def run(finished, tmp_path):
    write_run(finished, tmp_path)
    return read_run(SMALL, "cpu", arm="r4", folder=tmp_path)


def as_trained(model):
    return model.to(memory_format=torch.channels_last)  # so its answers are the same to the last bit


def kept_network(run):
    model = build("r4")
    model.load_state_dict(load_weights(run))
    return as_trained(model)


def test_a_run_survives_the_file_and_is_stale_once_its_model_changes(run, tmp_path, monkeypatch):
    assert run.experiment == SMALL and run.seed == 0 and run.arm == "r4" and run.device == "cpu"
    assert len(run.history["epoch"]) == run.metrics["epochs"] == 2 and run.metrics["parameters"] == 81_574
    assert not run.is_stale() and run.diverged is None
    assert {"data_hashes", "versions", "commit", "date", "threads"} <= set(run.provenance)
    assert sorted(p.name for p in (tmp_path / "cpu").iterdir()) == [f"{SMALL.key}.json"]
    monkeypatch.setattr(experiment, "build", lambda *a, **k: torch.nn.Linear(32, 10))
    assert run.is_stale()


def check_curve(curve, right, confidence, bins=BINS):
    """Compare a reliability curve with scikit-learn's, and return its error by hand."""
    filled = np.array(curve["count"]) > 0
    accuracy, mean = calibration_curve(right, confidence, n_bins=bins, strategy="uniform")
    np.testing.assert_allclose(np.array(curve["accuracy"])[filled], accuracy, rtol=1e-4)
    np.testing.assert_allclose(np.array(curve["confidence"])[filled], mean, rtol=1e-4)
    return np.average(abs(accuracy - mean), weights=np.array(curve["count"])[filled])


def test_the_figures_agree_with_one_another_and_with_scikit_learn(run):
    data = load("digits")
    labels, (guesses, confidence) = data.test.labels.numpy(), run.predictions["test"]
    np.testing.assert_array_equal(run.confusion["test"], confusion_matrix(labels, guesses))
    assert run.metrics["test_accuracy"] == pytest.approx((guesses == labels).mean(), rel=1e-5)
    assert run.confusion["train"].sum() == 256
    assert confidence.min() >= 0.1 and confidence.max() <= 1
    np.testing.assert_allclose(run.classwise("test"), [(guesses[labels == k] == k).mean() for k in range(10)])
    counts = {"train": 256, "validation": len(data.validation), "test": len(data.test)}
    assert {split: sum(curve["count"]) for split, curve in run.calibration.items()} == counts
    sure, named = predict(kept_network(run), data.test, data.mean, data.std).softmax(1).max(1)
    assert np.array_equal(named, guesses)  # the kept weights say the same
    error = check_curve(run.calibration["test"], guesses == labels, sure.numpy())
    assert run.metrics["test_calibration_error"] == pytest.approx(error, rel=1e-3)
    assert {f"{split}_calibration_error" for split in counts} <= set(run.metrics)


@pytest.mark.parametrize("bins", [1, 7, BINS])
@pytest.mark.parametrize("off", [0.0, 0.2])
def test_the_error_of_a_curve_is_scikit_learns_and_a_network_that_boasts_has_its_boast(bins, off):
    rng = np.random.default_rng(0)
    confidence = np.append(rng.uniform(0.3, 1, 200_000), 1.0)
    right = rng.random(confidence.size) < confidence - off
    curve = reliability(confidence, right, bins)
    assert curve["count"] == np.histogram(confidence, bins, (0, 1))[0].tolist()
    error = expected_calibration_error(curve)
    assert error == pytest.approx(check_curve(curve, right, confidence, bins)) == pytest.approx(off, abs=0.01)


def test_a_record_older_than_curves_and_averages_loads_and_what_is_missing_is_named(finished, tmp_path):
    choices = {name: value for name, value in finished["experiment"].items() if name != "averaging"}
    old = {name: value for name, value in finished.items() if name != "calibration"} | {"experiment": choices}
    write_run(old, tmp_path)
    run = read_run(SMALL, "cpu", arm="an arm", folder=tmp_path)
    assert run.experiment == SMALL and run.metrics["test_accuracy"] == finished["metrics"]["test_accuracy"]
    with pytest.raises(ValueError, match=rf"{SMALL.key}.json \(an arm, seed 0\) is older.*trained again"):
        run.calibration  # noqa: B018
    with pytest.raises(FileNotFoundError, match="0000"):
        load_weights(Run(finished | {"key": "0" * 16}))


def test_the_average_is_what_is_recorded_and_kept():
    averaged = train_run(SMALL.but(averaging=0.9), device="cpu", progress=False)
    history, metrics = averaged["history"], averaged["metrics"]
    assert metrics["validation_accuracy"] == history["averaged_validation_accuracy"][-1]
    assert metrics["validation_loss"] == history["averaged_validation_loss"][-1] != history["validation_loss"][-1]
    data = load("digits")
    logits = predict(kept_network(Run(averaged)), data.validation, data.mean, data.std)
    loss = torch.nn.functional.cross_entropy(logits, data.validation.labels).item()
    assert metrics["validation_loss"] == pytest.approx(loss, rel=1e-5)


def test_test_time_augmentation_is_the_mean_of_both_sides_and_reported_apart(finished):
    data, model = load("digits"), kept_network(Run(finished)).eval()
    images = normalise(data.test.images, data.mean, data.std)
    with torch.no_grad():
        means = (model(images) + model(images.flip(3))) / 2
    expected = (means.argmax(1) == data.test.labels).float().mean().item()
    metrics = finished["metrics"]
    assert metrics["test_accuracy_tta"] == pytest.approx(expected, abs=2 / len(data.test))
    assert metrics["test_accuracy_tta"] != metrics["test_accuracy"]  # digits are not to be mirrored


def test_a_numpy_run_is_recorded_like_any_other(tmp_path):
    experiment = SMALL.but(engine="numpy", model="r1", epochs=1)
    write_run(train_run(experiment, device="cuda", progress=False), tmp_path)
    run = read_run(experiment, "cuda", folder=tmp_path)  # NumPy computes on the CPU wherever it is
    assert run.device == "cpu" and not run.is_stale() and run.metrics["test_accuracy"] > 0.1
    assert sum(run.calibration["test"]["count"]) == run.confusion["test"].sum()
    load_weights(run)


def test_only_a_flagship_run_reads_the_test_set_and_a_diverged_one_is_recorded_as_such(monkeypatch, tmp_path):
    with monkeypatch.context() as patch:
        patch.setattr(type(load("digits")), "test", property(lambda self: pytest.fail("the test set was read")))
        plain = train_run(SMALL.but(flagship=False, epochs=1), device="cpu", progress=False)
    assert not [name for name in plain["metrics"] if name.startswith("test") or name.endswith("tta")]
    assert plain["predictions"] == {} and set(plain["calibration"]) == {"train", "validation"}
    run = train_run(SMALL.but(optimizer="SGD", lr=1e30), device="cpu", progress=False)
    assert "epoch 1" in run["diverged"] and json.loads(write_run(run, tmp_path).read_text())["diverged"]


def test_a_rehearsal_is_refused_among_the_results(finished, monkeypatch):
    monkeypatch.setenv("COURSE_SMOKE", "1")
    with pytest.raises(ValueError, match="COURSE_SMOKE"):
        write_run(finished, DATA / "runs")
    assert not record_path(SMALL, "cpu", DATA / "runs").exists()


@pytest.mark.parametrize("damage", ["{", "[]", '{"format": 1}', None])
def test_a_damaged_or_foreign_record_is_named_and_left_alone(finished, tmp_path, damage):
    path, text = record_path(SMALL.but(lr=0.5), "cpu", tmp_path), damage or json.dumps(finished)
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(ValueError, match=f"{path} is damaged" if damage else f"{path} belongs to another experiment"):
        read_run(SMALL.but(lr=0.5), "cpu", folder=tmp_path)
    assert path.read_text() == text


@pytest.mark.parametrize(("others", "collapsed"), [(0, True), (1, True), (20, False)])
def test_a_run_has_collapsed_where_it_names_one_class_for_nearly_all_training_pictures(run, others, collapsed):
    assert not run.collapsed
    counts = np.zeros((10, 10), dtype=int)
    counts[:, 3], counts[0, 5] = 900, others  # of 9,000
    assert Run(run.content | {"confusion": {"train": counts.tolist()}}).collapsed == collapsed


def test_thinned_losses_are_block_means():
    losses = np.random.default_rng(0).random(1000)
    thinned = thin(list(losses), points=100)
    np.testing.assert_allclose(thinned["loss"], losses.reshape(100, 10).mean(1))
    assert thinned["step"][0] == 5.5 and thinned["step"][-1] == 995.5
    assert thin([3.0, 1.0], points=100) == {"step": [1.0, 2.0], "loss": [3.0, 1.0]}
    assert thin([]) == {"step": [], "loss": []}


def test_every_committed_record_is_current_and_none_is_a_rehearsal():
    current = set()  # a network is built once, however many runs it has
    for path in sorted((DATA / "runs").glob("c*/*.json")):
        content = json.loads(path.read_text())
        experiment = Experiment(**content["experiment"])
        assert path.stem == experiment.key == content["key"] and experiment.dataset != "digits", path
        assert content["provenance"]["device"] == path.parent.name, path
        run = read_run(experiment, path.parent.name, folder=DATA / "runs")
        network = (experiment.model, str(experiment.model_options), len(run.classes), run.content["structure_hash"])
        assert network in current or not run.is_stale(), path
        current.add(network)
        if experiment.initial:
            assert content["provenance"]["initial"] == fingerprint(experiment.initial), path


def test_snapshots_hold_the_weights_before_training_and_after_every_epoch():
    experiment = SMALL.but(snapshots=True, flagship=False, train_size=64)
    run = Run(train_run(experiment, device="cpu", progress=False))
    torch.manual_seed(experiment.seed)
    start = build("r4").state_dict()
    assert all(torch.equal(value, start[name]) for name, value in load_snapshot(run, 0).state_dict().items())
    data = load("digits")
    for epoch, accuracy in zip((1, 2), run.history["validation_accuracy"], strict=True):
        logits = predict(as_trained(load_snapshot(run, epoch)), data.validation, data.mean, data.std)
        assert (logits.argmax(1) == data.validation.labels).float().mean().item() == pytest.approx(accuracy, abs=1e-5)
    with pytest.raises(FileNotFoundError, match="move the run's record away"):
        load_snapshot(run, 3)
