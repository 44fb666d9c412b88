"""Tables of runs, as pandas DataFrames of printable cells, and published conclusions beside them."""

from collections.abc import Mapping, Sequence
from math import hypot

import numpy as np
import pandas as pd

from helpers.record import (
    LEVEL,
    MISSING,
    Published,
    Runs,
    Verdict,
    arm_interval,
    arm_plus_minus,
    metric_label,
    plus_minus,
    published_figures,
    published_for,
    scale_and_digits,
    seeds_text,
    span,
)
from helpers.training import Experiment

FINAL_ACCURACIES = ("train_accuracy", "validation_accuracy", "test_accuracy")
# What a run may choose otherwise and still repeat a published one; the other choices, as a sentence calls them.
FREE_CHOICES = ("seed", "flagship", "snapshots")
CHOICE_NAMES = {
    "dataset": "pictures",
    "train_size": "number of pictures",
    "model": "network",
    "model_options": "network",
    "lr": "learning rate",
}


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
        settings = {key[0] for key in keys if len(key) > 2}  # such as R4's art, which has classes of its own
        told = dict.fromkeys(key[0] for key in keys if len(key) == 2 and key[1] in {f"{s}-accuracy" for s in splits})
        told = [name for name in told if name not in settings]
        if not told:
            raise KeyError(f"data/published.json has no class of {prefix!r}, such as {prefix}/cat/{splits[0]}-accuracy")
        for name in sorted(told, key=lambda name: classes.index(name) if name in classes else 0):
            row = rows[f"{arm}: {name}"] = {}
            for split in splits:
                theirs = figures.get(f"{prefix}/{name}/{split}-accuracy")
                ours = plus_minus(shares[split][:, classes.index(name)], 1) if name in classes else MISSING
                row |= {(split, "ours"): ours, (split, "published"): theirs.with_interval if theirs else MISSING}
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


def published_verdict(
    runs: Runs,
    published: Mapping[str, str],
    metric: str = "test_accuracy",
    as_published: Mapping[str, Experiment] | None = None,
) -> str:
    """Return in words, a line per arm, our mean beside the published figure, and which is higher if that can be told.

    ``as_published`` names, per arm, an experiment that repeats the published one, as a study's ``arms`` do: to pass it
    is to say that its network, pictures and training are those of the report. An arm is called above, below or not
    separable only if its runs are of that experiment; of all others the line says what differs, and nothing more.
    Each line stands alone, at 95 %. Arms of one seed have no line.
    """
    lines = []
    scale, digits = scale_and_digits(metric)
    unit = " %" if scale == 100 else ""
    for arm, seeds in runs.by_arm().items():
        theirs = published_for(published[arm], metric) if arm in published else None
        if theirs is None or len(seeds) < 2:
            continue
        found = tuple(scale * end for end in arm_interval(seeds, metric))
        mean, low, high = (f"{value:.{digits}f}" for value in found)
        ours = f"{arm}: our {metric.replace('_', ' ')} {mean} [{low}, {high}]{unit} over {len(seeds)} seeds"
        their = f"the published {theirs.with_interval}{unit}"
        their += f" over {theirs.pictures:,} pictures" if theirs.pictures else ""
        if other := _other_choices(seeds[0].experiment, (as_published or {}).get(arm)):
            lines.append(f"{ours}, beside {their}: other {other}, so neither above nor below")
        else:
            place, difference = _place(*difference_to(theirs, found), digits, " points" if scale == 100 else "")
            lines.append(f"{ours}, {place} {their} ({difference})")
    return "\n".join(lines)


def _other_choices(ours: Experiment, theirs: Experiment | None) -> str:
    """Return in words what ``ours`` chose otherwise; nothing if it repeats ``theirs``."""
    if theirs is None:
        return "pictures, training or network"
    chosen = theirs.choices()
    other = [name for name, value in ours.choices().items() if value != chosen[name] and name not in FREE_CHOICES]
    return ", ".join(dict.fromkeys(CHOICE_NAMES.get(name, name.replace("_", " ")) for name in other))


def _place(difference: float, low: float, high: float, digits: int, unit: str) -> tuple[str, str]:
    """Return in words on which side a difference with its interval lies, and how large it is."""
    place = "above" if low > 0 else "below" if high < 0 else "not separable from"
    ends = f"[{low:+.{digits}f}, {high:+.{digits}f}]"
    return place, f"difference {difference:+.{digits}f}{unit}, {LEVEL:.0%} interval {ends}"


def difference_to(theirs: Published, ours: tuple[float, float, float]) -> tuple[float, float, float]:
    """Return our mean less a published figure, and the ends of the 95 % interval of that difference.

    ``ours`` are mean, lower and upper end on the scale of the published figure. Each end adds up the squares of two
    distances: from our mean to the end of its interval, and from their figure to the end of its interval over pictures,
    where it has one (Zou and Donner, 2008). So two variances are added. Not covered is what another seed of theirs
    would have given.
    """
    mean, low, high = ours
    their_low, their_high = theirs.interval() or (theirs.value, theirs.value)
    difference = mean - theirs.value
    down, up = hypot(mean - low, their_high - theirs.value), hypot(high - mean, theirs.value - their_low)
    return difference, difference - down, difference + up


EXPECTED = ("above", "below")


def agreement(claim: str, found: Verdict, expected: str = "above") -> str:
    """Return in words, a line per pair of ``found``, whether it bears out what a report concluded.

    ``claim`` is that conclusion, in which ``{a}`` and ``{b}`` stand for the two arms of a pair. ``expected`` says on
    which side of the second arm the claim has the first. So pairs are named as the *report* orders them, with
    ``against=``, never in the order of our results. A pair that is not separable speaks neither for nor against.

    Raises:
        ValueError: ``expected`` is neither "above" nor "below".
    """
    if expected not in EXPECTED:
        raise ValueError(f"expected={expected!r}: say whether the claim has the first arm {' or '.join(EXPECTED)}")
    sign = 1 if expected == "above" else -1
    lines = []
    for pair in found.differences:
        says = "cannot tell" if not pair.separable else "agrees" if sign * pair.mean > 0 else "contradicts this"
        lines.append(f"{claim.format(a=pair.a, b=pair.b)}. Our record {says}: {found.sentence(pair)}.")
    return "\n".join(lines)


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
