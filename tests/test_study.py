"""A study reads what is recorded, and trains what is not."""

import numpy as np
import pandas as pd
import pytest

from course.notebooks import most_telling_first, status
from helpers.record import Run, Runs, Study, first_recorded, write_run
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


def scales(seeds=6, **chosen):
    arms, epochs = {"a": {}, "b": {"batch_size": 32}}, {"large": 9, "some": 4, "small": 2}
    return [Study(name, SMALL.but(epochs=n, **chosen), arms=arms, seeds=seeds) for name, n in epochs.items()]


def test_the_largest_scale_that_is_recorded_answers(folder):
    large, some, small = scales()
    fill(small, range(3))
    assert first_recorded(large, some, small).study == "small"
    fill(some, range(6))
    assert len(first_recorded(large, some, small)) == 12
    fill(large, range(2))  # two seeds are no evidence yet
    fill(large, range(2, 4), "cuda")  # nor are two and two of different kinds
    assert first_recorded(large, some, small).study == "some"
    fill(large, [2])
    runs = first_recorded(large, some, small)
    assert runs.study == "large" and runs.seeds == [0, 1, 2] and {run.device for run in runs} == {"cpu"}
    # A study of two seeds is recorded with two of every arm.
    large, _, small = scales(seeds=2, lr=0.3)
    fill(small, range(2))
    fill(large, [0])
    write_run(fake(large.arms["a"].but(seed=1)))
    assert first_recorded(large, small).study == "small"
    fill(large, [1])
    assert first_recorded(large, small).study == "large"


def test_where_nothing_is_recorded_the_last_scale_is_trained_and_only_once(asked):
    large, some, small = scales()
    fill(some, range(2))
    assert first_recorded(large, some, small).study == first_recorded(large, some, small).study == "small"
    assert some.runs().seeds == some.runs().seeds == [0, 1, 2]
    assert asked == [(title, 1, [0, 0, 1, 1, 2, 2]) for title in ("small", "some")]


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
