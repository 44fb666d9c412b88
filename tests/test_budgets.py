"""The table of budgets trains nothing and shows what is recorded; a kept network is that of the run."""

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.metrics import confusion_matrix

from helpers.data import DataMissing
from helpers.lessons import budgets
from helpers.lessons.budgets import budget_table, final_network
from helpers.models import build
from helpers.record import Run, Study, pack, study
from helpers.training import Experiment

BASE = Experiment(dataset="digits", model="r4", epochs=2, flagship=True)
FULL, SMALL = (Study(name, BASE.but(epochs=n), arms={"R4": {}}, seeds=3) for name, n in (("r4-full", 9), ("r4", 2)))


LABELS = np.repeat([0, 1], 50)


def record(experiment, accuracy):
    metrics = {"validation_accuracy": accuracy, "test_accuracy": accuracy - 0.01, "training_seconds": 10.0}
    wrong = np.arange(LABELS.size) >= round(LABELS.size * metrics["test_accuracy"])
    guesses = np.where(wrong, 1 - LABELS, LABELS)
    return {
        "experiment": experiment.choices(),
        "metrics": metrics,
        "provenance": {"device": "cpu"},
        "diverged": None,
        "confusion": {"train": [[1, 0], [0, 1]], "test": confusion_matrix(LABELS, guesses).tolist()},
        "predictions": {"test": {"labels": pack(guesses), "confidence": pack(np.full(LABELS.size, 255))}},
    }


@pytest.fixture
def recorded(monkeypatch, tmp_path):
    """Pretend that the small study has been recorded, and nothing else."""
    runs = {e.key: record(e, 0.5 + 0.1 * e.seed) for _, e in SMALL.experiments()}
    for key in runs:
        (tmp_path / key).touch()
    monkeypatch.setattr(study, "record_path", lambda e, device: tmp_path / (e.key if device == "cpu" else "none"))
    monkeypatch.setattr(study, "read_run", lambda e, device, arm="": Run(runs[e.key], arm) if e.key in runs else None)
    monkeypatch.setattr(study, "record", lambda *args, **options: pytest.fail("the table trains"))


def test_rows_show_the_first_study_that_is_recorded_and_none_where_none_is(recorded):
    table = budget_table(
        {"small": (FULL, SMALL), "large": (FULL,)}, {"R4": "R4", "ResNet-20": "He2016/resnet-20", "R1": "R1/numpy"}
    )
    assert list(table.index) == ["small", "R4", "ResNet-20", "R1"]
    assert list(table["parameters"]) == ["81,574", "81,574", "270,000", "–"]
    assert table.loc["R1", "validation (%)"] == "50.15"  # 67.82, 60.00, ... 49.04: ten classes
    half = 100 * stats.sem([0.5, 0.6, 0.7]) * stats.t.ppf(0.975, 2)
    assert table.loc["small", "validation (%)"] == f"60.00 ± {half:.2f}" and table.loc["small", "seeds"] == "3"
    mean, both = map(float, table.loc["small", "test (%)"].split(" ± "))
    assert mean == 59 and half < both < half + 10  # its interval covers the pictures, too
    assert table.loc["small", "seconds"] == "10 ± 0 on cpu" and table.loc["small", "epochs"] == "2"
    assert table.loc["small", "mirrored (%)"] == "–"  # older than that figure
    assert (table.loc["R4", "test (%)"], table.loc["ResNet-20", "test (%)"]) == ("64.57 [60.7, 68.2]", "91.25")
    with pytest.raises(KeyError, match="nothing of 'R9'"):
        budget_table({}, {"R9": "R9"})


def test_the_kept_network_is_that_of_the_run(monkeypatch):
    torch.manual_seed(1)
    trained, kept = build("r4").eval(), {}
    run = Run({**record(BASE, 0.5), "key": BASE.key, "classes": list("0123456789")})

    def load(name):
        if name not in kept:
            raise DataMissing(name)
        return kept[name]

    monkeypatch.setattr(budgets, "load_network", load)
    monkeypatch.setattr(budgets, "load_weights", lambda run: trained.state_dict())
    info = {"key": run.content["key"], "device": "cpu"}
    monkeypatch.setattr(budgets, "save_network", lambda name, model, run: kept.update({name: (model, info)}))
    network = final_network("mine", run)
    assert torch.equal(network.fc1.weight, trained.fc1.weight)
    monkeypatch.setattr(budgets, "load_weights", lambda run: pytest.fail("the network is kept already"))
    assert final_network("mine", run) is network
    other = Run({**run.content, "key": "0" * 16})
    monkeypatch.setattr(budgets, "load_weights", lambda run: (_ for _ in ()).throw(FileNotFoundError("not here")))
    with pytest.raises(FileNotFoundError, match="not here"):
        final_network("mine", other)
