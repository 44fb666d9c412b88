"""A study reads what is recorded, and trains what is not."""

import numpy as np
import pandas as pd
import pytest

from course.notebooks import most_telling_first, status
from helpers.record import Run, Runs, Study, write_run
from helpers.record import study as study_module
from helpers.training import Experiment

SMALL = Experiment(dataset="digits", model="r4", train_size=256, batch_size=64, epochs=1)


def fake(experiment, device="cpu", accuracy=0.5):
    content = {"format": 1, "experiment": experiment.choices(), "key": experiment.key, "classes": list("0123456789")}
    metrics = {"validation_accuracy": accuracy, "validation_loss": 1 - accuracy, "training_seconds": 2.0}
    content |= {"metrics": metrics, "confusion": {"train": np.eye(10, dtype=int).tolist()}, "diverged": None}
    return content | {"structure_hash": "old", "provenance": {"device": device, "device_name": "a machine"}}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr("helpers.record.run.runs_folder", lambda: tmp_path)
    monkeypatch.setattr(study_module, "record", lambda *a, **k: pytest.fail("something was trained"))
    return tmp_path


def fill(study, seeds, device="cpu", draw=None):
    for arm, experiment in study.arms.items():
        for seed in seeds:
            write_run(fake(experiment.but(seed=seed), device, draw(arm, seed) if draw else 0.5))


def test_arms_are_the_product_of_what_varies_and_one_seed_of_every_arm_comes_before_the_next():
    study = Study("s", SMALL, vary={"lr": [0.1, 0.2], "batch_size": [32, 64]}, seeds=2)
    arms = ["0.1, 32", "0.1, 64", "0.2, 32", "0.2, 64"]
    assert list(study.arms) == arms and study.arms["0.2, 32"] == SMALL.but(lr=0.2, batch_size=32)
    assert [(arm, e.seed) for arm, e in study.experiments()] == [(arm, seed) for seed in (0, 1) for arm in arms]
    for wrong in ({}, {"vary": {"lr": [1]}, "arms": {"a": {}}}):
        with pytest.raises(ValueError, match="either"):
            Study("s", SMALL, **wrong)
    with pytest.raises(ValueError, match="lerning_rate"):
        Study("s", SMALL, vary={"lerning_rate": [1]})


def test_recorded_runs_are_read(folder):
    study = Study("s", SMALL, arms={"a": {}, "b": {"lr": 0.1}}, seeds=6)
    fill(study, range(3), draw=lambda arm, seed: {"a": 0.5, "b": 0.6}[arm] + seed / 100)
    runs = study.runs()
    assert len(runs) == 6 and runs.arms == ["a", "b"] and runs.seeds == [0, 1, 2]
    expected = pd.DataFrame({"a": [0.5, 0.51, 0.52], "b": [0.6, 0.61, 0.62]}, index=pd.Index(range(3), name="seed"))
    pd.testing.assert_frame_equal(runs.values("validation_accuracy"), expected)
    assert "3 seeds of 6 declared, recorded on cpu (a machine)" in str(runs)


def test_kinds_of_device_never_mix_and_more_seeds_win(folder):
    study = Study("s", SMALL, arms={"a": {}, "b": {"lr": 0.1}}, seeds=6)
    fill(study, range(3), "cpu")
    fill(study, range(2), "cuda")
    assert {run.device for run in study.runs()} == {"cpu"}
    fill(study, range(6), "cuda")
    assert {run.device for run in study.runs()} == {"cuda"} and len(study.runs()) == 12
    with pytest.raises(ValueError, match="one comparison"):
        Runs(study.name, [Run(fake(SMALL, "cpu"), "a"), Run(fake(SMALL, "cuda"), "a")])


@pytest.fixture
def asked(folder, monkeypatch):
    """Let training write a record at once, and return the list of what was asked for."""
    asked = []

    def train(experiments, jobs, title):
        asked.append((title, jobs, sorted(e.seed for e in experiments)))
        for experiment in experiments:
            write_run(fake(experiment))
        return "cpu"

    monkeypatch.setattr(study_module, "record", train)
    return asked


def test_three_seeds_of_one_kind_of_device_are_a_record_or_all_that_are_declared(folder):
    study = Study("s", SMALL, arms={"a": {}, "b": {"batch_size": 32}}, seeds=6)
    fill(study, range(2))  # two seeds are no evidence yet
    fill(study, range(2, 4), "cuda")  # nor are two and two of different kinds
    assert not study.is_recorded()
    fill(study, [2])
    assert study.is_recorded() and study.runs().seeds == [0, 1, 2] and {run.device for run in study.runs()} == {"cpu"}
    pair = Study("s", SMALL.but(lr=0.3), arms={"a": {}, "b": {"batch_size": 32}}, seeds=2)
    fill(pair, [0])
    write_run(fake(pair.arms["a"].but(seed=1)))
    assert not pair.is_recorded()
    fill(pair, [1])
    assert pair.is_recorded()


def test_what_is_missing_is_trained_once(asked):
    study = Study("s", SMALL, arms={"a": {}, "b": {"batch_size": 32}}, seeds=6)
    fill(study, range(2))
    assert study.runs().seeds == study.runs().seeds == [0, 1, 2]
    assert asked == [("s", 1, [0, 0, 1, 1, 2, 2])]


def test_the_needed_seeds_of_cheap_runs_are_trained_first():
    small, large = SMALL, SMALL.but(model="r2")  # R2's net takes more multiply-adds than R4's
    longer, whole = SMALL.but(epochs=3), SMALL.but(train_size=None)
    declared = [e.but(seed=seed) for e in (whole, large, longer, small) for seed in (0, 3, 1)]
    told = most_telling_first([*declared, *declared])
    needed = [e.but(seed=seed) for e in (small, longer, large, whole) for seed in (0, 1)]
    assert told == [*needed, *(e.but(seed=3) for e in (small, longer, large, whole))]


def test_status_counts_and_sees_stale_runs(folder):
    study = Study("s", SMALL, vary={"lr": [0.1, 0.2]}, seeds=3)
    row = {"study": "s", "notebook": "n", "declared": 6, "recorded": 0, "seeds": 0, "device": None, "stale": 0}
    assert status({"n": [study]}) == [row]
    fill(study, [0, 1])
    assert status({"n": [study]}) == [row | {"recorded": 4, "seeds": 2, "device": "cpu", "stale": 4}]
    study = Study("s", SMALL.but(model="r3", engine="numpy"), vary={"lr": [0.1]}, seeds=3)
    fill(study, [0, 1])
    assert [(row["device"], row["recorded"]) for row in status({"n": [study]})] == [("cpu", 2)]  # a NumPy run: once


def test_a_rehearsal_shrinks_everything_in_one_place(monkeypatch):
    monkeypatch.setenv("COURSE_SMOKE", "1")
    study = Study("s", Experiment(epochs=90, batch_size=512, model="r4"), vary={"lr": [0.1, 0.2]}, seeds=6)
    assert len(study.seeds) == 2
    for small in study.arms.values():
        assert (small.dataset, small.epochs, small.model) == ("digits", 2, "r4")
        assert small.batch_size <= small.train_size <= 300
