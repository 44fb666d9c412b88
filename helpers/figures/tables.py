"""Tables of runs, as pandas DataFrames of printable cells."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from helpers.record import (
    MISSING,
    Runs,
    arm_plus_minus,
    metric_label,
    plus_minus,
    published_for,
    seeds_text,
    span,
)

FINAL_ACCURACIES = ("train_accuracy", "validation_accuracy", "test_accuracy")


def classwise_table(runs: Runs, splits: Sequence[str] = ("train", "validation")) -> pd.DataFrame:
    """Return the accuracy of each class in percent: a row per class and one for all, columns (arm, split).

    With a single split the columns are the arms alone. Intervals cover the seeds alone, not which pictures are in the
    split.
    """
    table = {}
    for arm, seeds in runs.by_arm().items():
        for split in splits:
            shares = 100 * np.array([run.classwise(split) for run in seeds])  # (seeds, classes)
            overall = [100 * run.metrics[f"{split}_accuracy"] for run in seeds]
            cells = [plus_minus(column, 1) for column in shares.T] + [plus_minus(overall, 1)]
            table[(arm, split) if len(splits) > 1 else arm] = cells
    return pd.DataFrame(table, index=[*runs[0].classes, "all classes"])


def comparison_table(
    runs: Runs, published: Mapping[str, str], metrics: Sequence[str] = ("test_accuracy",)
) -> pd.DataFrame:
    """Return, per arm, our mean ± half-width of its 95 % interval over n seeds beside the published figure.

    ``published`` names, per arm, the published net or setting, such as "R2/kernels/3-3-3". Where the number of
    pictures is known on which a published accuracy stands, its own 95 % interval follows: "64.57 [60.7, 68.2]".
    """
    rows = {}
    for arm, seeds in runs.by_arm().items():
        row: dict[tuple[str, str], str] = {("", "seeds"): seeds_text(seeds)}
        for metric in metrics:
            theirs = published_for(published[arm], metric) if arm in published else None
            row[metric_label(metric), "ours"] = arm_plus_minus(seeds, metric)
            row[metric_label(metric), "published"] = theirs.with_interval if theirs else MISSING
        rows[arm] = row
    return pd.DataFrame.from_dict(rows, orient="index")


def accuracy_table(runs: Runs, metrics: Sequence[str] | None = None) -> pd.DataFrame:
    """Return final figures of each arm, mean ± half-width of the 95 % interval; by default all accuracies."""
    if metrics is None:
        metrics = [m for m in FINAL_ACCURACIES if all(m in run.metrics for run in runs)]
    by_arm = runs.by_arm()
    columns = {"seeds": [seeds_text(seeds) for seeds in by_arm.values()]}
    for metric in metrics:
        columns[metric_label(metric)] = [arm_plus_minus(seeds, metric) for seeds in by_arm.values()]
    return pd.DataFrame(columns, index=runs.arms)


def arms_table(runs: Runs) -> pd.DataFrame:
    """Return what each arm cost, from the record: parameters, epochs trained and kept, time per epoch."""
    rows = {}
    for arm, seeds in runs.by_arm().items():
        last, best = ([run.metrics[name] for run in seeds] for name in ("epochs", "best_epoch"))
        rows[arm] = {
            "parameters": f"{seeds[0].metrics['parameters']:,}",
            "epochs": span(last),
            "weights of epoch": span(best),
            "seconds per epoch": f"{np.median([s for run in seeds for s in run.history['seconds']]):.1f}",
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def scales_table(questions: Mapping[str, Runs]) -> pd.DataFrame:
    """Return at which scale each question was asked: a row per question, from its runs.

    Where arms differ in a choice, the lowest and the highest value stand there.
    """
    rows = {}
    for question, runs in questions.items():
        experiments = [run.experiment for run in runs]
        rows[question] = {
            "network": ", ".join(dict.fromkeys(experiment.model for experiment in experiments)),
            # Every training picture stands once in the confusion matrix, whichever part of the split was used.
            "training pictures": span(int(run.confusion["train"].sum()) for run in runs),
            "batch size": span(experiment.batch_size for experiment in experiments),
            "learning rate": span(experiment.lr for experiment in experiments),
            "epochs": span(run.metrics["epochs"] for run in runs),
            "seeds": str(len(runs.seeds)),
        }
    return pd.DataFrame.from_dict(rows, orient="index")
