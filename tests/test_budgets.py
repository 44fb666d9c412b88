"""The table of budgets trains nothing and says what waits; a kept network is that of the run."""

import pytest
import torch

from helpers import budgets, study
from helpers.budgets import budget_table, final_network, waiting
from helpers.data import DataMissing
from helpers.experiment import Experiment
from helpers.models import build
from helpers.run import Run
from helpers.study import Study

BASE = Experiment(dataset="digits", model="r4", epochs=2, flagship=True)
FULL, SMALL = (Study(name, BASE.but(epochs=n), arms={"R4": {}}, seeds=3) for name, n in (("r4-full", 9), ("r4", 2)))


def record(experiment, accuracy):
    metrics = {"validation_accuracy": accuracy, "test_accuracy": accuracy - 0.01, "training_seconds": 10.0}
    return {"experiment": experiment.choices(), "metrics": metrics, "provenance": {"device": "cpu"}, "diverged": None}


@pytest.fixture
def recorded(monkeypatch, tmp_path):
    """Pretend that the small study has been recorded, and nothing else."""
    runs = {e.key: record(e, 0.5 + 0.1 * e.seed) for _, e in SMALL.experiments()}
    for key in runs:
        (tmp_path / key).touch()
    monkeypatch.setattr(study, "record_path", lambda e, device: tmp_path / (e.key if device == "cpu" else "none"))
    monkeypatch.setattr(study, "read_run", lambda e, device, arm="": Run(runs[e.key], arm) if e.key in runs else None)
    monkeypatch.setattr(study, "record", lambda *args, **options: pytest.fail("the table trains"))


def test_rows_show_the_first_study_that_is_recorded_and_what_waits(recorded):
    table = budget_table(
        {"small": (FULL, SMALL), "large": (FULL,)}, {"R4": "R4", "ResNet-20": "He2016/resnet-20", "R1": "R1/numpy"}
    )
    assert list(table.index) == ["small", "large", "R4", "ResNet-20", "R1"]
    assert list(table["parameters"]) == ["81,574", "81,574", "81,574", "270,000", "–"]
    assert table.loc["R1", "validation (%)"] == "50.15"  # 67.82, 60.00, ... 49.04: ten classes
    assert table.loc["small", "validation (%)"].startswith("60.00 ± ") and table.loc["small", "seeds"] == "3"
    assert table.loc["small", "seconds"] == "10 ± 0 on cpu" and table.loc["small", "epochs"] == "2"
    assert table.loc["small", "mirrored (%)"] == "–"  # older than that figure
    assert table.loc["large", "seconds"] == "waits for a GPU" and table.loc["large", "seeds"] == "0 of 3"
    assert (table.loc["R4", "test (%)"], table.loc["ResNet-20", "test (%)"]) == ("64.57 [60.7, 68.2]", "91.25")
    with pytest.raises(KeyError, match="nothing of 'R9'"):
        budget_table({}, {"R9": "R9"})


def test_a_sentence_names_what_waits_and_how_to_train_it(recorded):
    text = waiting({"small": (FULL, SMALL), "done": (SMALL,)})
    assert text == "1 of 2 budgets wait for a GPU to be trained at full length. small: make record STUDY=r4-full."
    assert waiting({"done": (SMALL,)}) == "All 1 budgets are recorded at full length."


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
