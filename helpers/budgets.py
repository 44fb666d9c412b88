"""Networks under a budget beside what others reached under the same one: a table, and what still waits for a GPU."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from torch import nn

from helpers.cifar10 import CLASSES
from helpers.data import DataMissing
from helpers.layers import layer_table
from helpers.models import build
from helpers.pretrained import load_network, save_network
from helpers.published import published_figures
from helpers.quantities import MISSING, arm_plus_minus, plus_minus
from helpers.run import Run, load_weights
from helpers.study import Study

ACCURACIES = {
    "validation (%)": "validation_accuracy",
    "test (%)": "test_accuracy",
    "mirrored (%)": "test_accuracy_tta",
}


def budget_table(ours: Mapping[str, Sequence[Study]], published: Mapping[str, str]) -> pd.DataFrame:
    """Return a row per budget of ours, from the first of its studies that is recorded, and one per published network.

    Studies of one arm; where none of them is recorded, the row says what the network costs, and that it waits. Nothing
    is trained. ``published`` names, per row, the published network, such as "He2016/resnet-20", whose parameters,
    accuracies and seconds are looked up; where validation was published by class alone, the mean of the ten stands for
    it. Our accuracies are means with their 95 % intervals over seeds, theirs have one where their pictures are known.
    """
    rows = {name: _ours(studies) for name, studies in ours.items()}
    return pd.DataFrame.from_dict(rows | {name: _theirs(prefix) for name, prefix in published.items()}, orient="index")


def waiting(ours: Mapping[str, Sequence[Study]]) -> str:
    """Return in a sentence which budgets have not been trained at full length, and how to train them."""
    full = {name: studies[0] for name, studies in ours.items()}
    missing = {name: study for name, study in full.items() if not study.is_recorded()}
    if not missing:
        return f"All {len(full)} budgets are recorded at full length."
    how = "; ".join(f"{name}: make record STUDY={study.name}" for name, study in missing.items())
    return f"{len(missing)} of {len(full)} budgets wait for a GPU to be trained at full length. {how}."


def final_network(name: str, run: Run) -> nn.Module:
    """Return the kept network ``name`` in evaluation mode; if it is not that of ``run``, it is kept from its weights.

    Raises:
        FileNotFoundError: it is another, and the weights of ``run`` are not on this machine.
    """
    try:
        network, info = load_network(name)
        if (info["key"], info["device"]) == (run.content["key"], run.device):
            return network
    except DataMissing:
        pass
    experiment = run.experiment
    network = build(experiment.model, classes=len(run.classes), **experiment.model_options)
    network.load_state_dict(load_weights(run))
    save_network(name, network, run)
    return load_network(name)[0]


def _ours(studies: Sequence[Study]) -> dict[str, str]:
    recorded = next((study for study in studies if study.is_recorded()), None)
    study = recorded or studies[0]
    (experiment,) = study.arms.values()
    layers = layer_table(build(experiment.model, **experiment.model_options))
    row = {
        "parameters": f"{sum(layer['parameters'] for layer in layers):,}",
        "multiply-adds": f"{sum(layer['multiply_adds'] for layer in layers) / 1e6:,.1f} M",
        "epochs": str(experiment.epochs),
        "seeds": f"0 of {len(study.seeds)}",
        **dict.fromkeys(ACCURACIES, MISSING),
        "seconds": "waits for a GPU",
    }
    if recorded is None:
        return row
    runs = recorded.runs()
    for label, metric in ACCURACIES.items():
        if all(metric in run.metrics for run in runs):
            row[label] = arm_plus_minus(runs, metric)
    seconds = plus_minus([run.metrics["training_seconds"] for run in runs], 0)
    return row | {"seeds": str(len(runs.seeds)), "seconds": f"{seconds} on {runs[0].device}"}


def _theirs(prefix: str) -> dict[str, str]:
    figures = published_figures()

    def printed(quantity: str) -> str:
        figure = figures.get(f"{prefix}/{quantity}")
        return figure.with_interval if figure else MISSING

    parameters = figures.get(f"{prefix}/parameters")
    if not any(key.startswith(f"{prefix}/") for key in figures):
        raise KeyError(f"data/published.json has nothing of {prefix!r}")
    by_class = [figures.get(f"{prefix}/{name}/validation-accuracy") for name in CLASSES]
    validation = printed("validation-accuracy")
    if all(by_class):  # the classes are of one size, so their mean is that of the pictures
        validation = f"{np.mean([figure.value for figure in by_class]):.2f}"
    return {
        "parameters": f"{int(parameters.value):,}" if parameters else MISSING,
        "multiply-adds": MISSING,
        "epochs": printed("epochs"),
        "seeds": MISSING,
        "validation (%)": validation,
        "test (%)": printed("test-accuracy" if f"{prefix}/test-accuracy" in figures else "accuracy"),
        "mirrored (%)": MISSING,
        "seconds": printed("seconds"),
    }
