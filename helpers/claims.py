"""A published conclusion beside our own runs: at which scale they are, and whether they bear it out."""

from collections.abc import Mapping

import pandas as pd

from helpers.evidence import Verdict
from helpers.quantities import span
from helpers.study import Runs

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
