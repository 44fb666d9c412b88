"""Networks under a budget beside what others reached under the same one, and the kept network of a run."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from torch import nn

from helpers.data import DataMissing
from helpers.data.cifar10 import CLASSES
from helpers.models import build, layer_table
from helpers.record import MISSING, Run, Study, arm_plus_minus, load_weights, plus_minus, published_figures, seeds_text
from helpers.training import load_network, save_network

ACCURACIES = {
    "validation (%)": "validation_accuracy",
    "test (%)": "test_accuracy",
    "mirrored (%)": "test_accuracy_tta",
}


def budget_table(ours: Mapping[str, Sequence[Study]], published: Mapping[str, str]) -> pd.DataFrame:
    """Return a row per budget of ours, from the first of its studies that is recorded, and one per published network.

    Studies of one arm; a budget of which none is recorded has no row. Nothing is trained. ``published`` names, per row,
    the published network, such as "He2016/resnet-20", whose parameters, accuracies and seconds are looked up; where
    validation was published by class alone, the mean of the ten stands for it. Our accuracies are means with their 95 %
    intervals, and a published one carries its own where its pictures are known.
    """
    recorded = {name: next((s for s in studies if s.is_recorded()), None) for name, studies in ours.items()}
    rows = {name: _ours(study) for name, study in recorded.items() if study}
    return pd.DataFrame.from_dict(rows | {name: _theirs(prefix) for name, prefix in published.items()}, orient="index")


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
    save_network(name, network, run.content)
    return load_network(name)[0]


def _ours(study: Study) -> dict[str, str]:
    (experiment,) = study.arms.values()
    layers, runs = layer_table(build(experiment.model, **experiment.model_options)), study.runs()
    row = {
        "parameters": f"{sum(layer['parameters'] for layer in layers):,}",
        "multiply-adds": f"{sum(layer['multiply_adds'] for layer in layers) / 1e6:,.1f} M",
        "epochs": str(experiment.epochs),
        "seeds": seeds_text(runs),
    }
    for label, metric in ACCURACIES.items():
        row[label] = arm_plus_minus(runs, metric) if all(metric in run.metrics for run in runs) else MISSING
    seconds = plus_minus([run.metrics["training_seconds"] for run in runs], 0)
    return row | {"seconds": f"{seconds} on {runs[0].device}"}


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
