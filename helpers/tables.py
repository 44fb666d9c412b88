"""Tables of runs, as pandas DataFrames of printable cells: means with their 95 % intervals."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from helpers.evidence import LEVEL, interval
from helpers.published import published_figures, published_for
from helpers.quantities import MISSING, arm_plus_minus, metric_label, plus_minus, scale_and_digits, seeds_text, span
from helpers.study import Runs

FINAL_ACCURACIES = ("train_accuracy", "validation_accuracy", "test_accuracy")


def classwise_table(runs: Runs, splits: Sequence[str] = ("train", "validation")) -> pd.DataFrame:
    """Return the accuracy of each class in percent: a row per class and one for all, columns (arm, split).

    With a single split the columns are the arms alone.
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

    ``published`` names, per arm, the published net or setting, such as "R2/kernels/3-3-3".
    """
    rows = {}
    for arm, seeds in runs.by_arm().items():
        row: dict[tuple[str, str], str] = {("", "seeds"): str(len(seeds))}
        for metric in metrics:
            scale, digits = scale_and_digits(metric)
            theirs = published_for(published[arm], metric) if arm in published else None
            row[metric_label(metric), "ours"] = plus_minus([scale * r.metrics[metric] for r in seeds], digits)
            row[metric_label(metric), "published"] = theirs.text if theirs else MISSING
        rows[arm] = row
    return pd.DataFrame.from_dict(rows, orient="index")


def published_classes_table(
    runs: Runs, published: Mapping[str, str], splits: Sequence[str] = ("train", "validation")
) -> pd.DataFrame:
    """Return our accuracy of single classes beside the published one, in percent: a row per (arm, class).

    ``published`` names, per arm, the published setting, such as "R1/lr/1e-3"; classes of which that report says
    nothing are left out, and runs on another data set have no figure for those of which it does. Columns are (split,
    "ours" or "published").

    Raises:
        ValueError: there is no such arm.
        KeyError: nothing is published about any class under that name.
    """
    figures, rows = published_figures(), {}
    for arm, prefix in published.items():
        several, classes = runs.only(arm), list(runs[0].classes)
        shares = {split: 100 * np.array([run.classwise(split) for run in several]) for split in splits}
        keys = [key.removeprefix(f"{prefix}/").split("/") for key in figures if key.startswith(f"{prefix}/")]
        told = dict.fromkeys(key[0] for key in keys if len(key) == 2 and key[1] in {f"{s}-accuracy" for s in splits})
        if not told:
            raise KeyError(f"data/published.json has no class of {prefix!r}, such as {prefix}/cat/{splits[0]}-accuracy")
        for name in sorted(told, key=lambda name: classes.index(name) if name in classes else 0):
            row = rows[f"{arm}: {name}"] = {}
            for split in splits:
                theirs = figures.get(f"{prefix}/{name}/{split}-accuracy")
                ours = plus_minus(shares[split][:, classes.index(name)], 1) if name in classes else MISSING
                row |= {(split, "ours"): ours, (split, "published"): theirs.text if theirs else MISSING}
    return pd.DataFrame(
        list(rows.values()),
        list(rows),
        pd.MultiIndex.from_product([splits, ("ours", "published")]),
    )


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


def published_verdict(runs: Runs, published: Mapping[str, str], metric: str = "test_accuracy") -> str:
    """Return in words, a line per arm, where the interval of our mean lies against the published figure.

    The published figure is a single run and has no interval of its own, so this says whether our mean can be
    told from that number, not from what a second run of theirs would give.
    """
    lines = []
    scale, digits = scale_and_digits(metric)
    unit, what = (" %" if scale == 100 else ""), metric.replace("_", " ")
    for arm, seeds in runs.by_arm().items():
        theirs = published_for(published[arm], metric) if arm in published else None
        if theirs is None or len(seeds) < 2:
            continue
        mean, low, high = interval([scale * run.metrics[metric] for run in seeds])
        place = "above" if low > theirs.value else "below" if high < theirs.value else "not separable from"
        lines.append(
            f"{arm}: mean {what} {mean:.{digits}f}{unit} over {len(seeds)} seeds, {LEVEL:.0%} interval "
            f"[{low:.{digits}f}, {high:.{digits}f}], {place} the published {theirs.text}{unit}"
        )
    return "\n".join(lines)
