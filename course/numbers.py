"""Every number that the report may quote, from the record: ``study/arm/figure/mean`` and the like.

Keys are lower case words joined by ``/``; what is no letter, digit, dot or hyphen in a label becomes a hyphen.
A figure has mean, n (seeds) and pm (mean ± half-width of the 95 % interval). Among the numbers is how often the rule of
evidence errs, and how much it sees: simulated and counted on the course's own record.
"""

import json
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from course.notebooks import WHOLE
from helpers.record import Run, Runs, Study, arm_mean_and_half, evidence, published_figures, scale_and_digits
from helpers.settings import DATA, runs_folder
from helpers.show import escape, measured, number

# What is recorded: each study's notebook and runs, by the study's name.
Found = Mapping[str, tuple[str, Runs]]
VERDICTS = ("holds", "the opposite here", "cannot be told")
# No sentence quotes from a longer list than this; a figure or a table shows it.
LONGEST_LIST = 32
# Numbers of seeds for which the rule's error is simulated, and in how many families for each study.
METRIC, SEEDS, FAMILIES = "validation_accuracy", (3, 6), 2_000


def slug(label: object) -> str:
    """Return ``label`` as a part of a key."""
    return re.sub(r"[^a-z0-9.]+", "-", str(label).lower()).strip("-")


def recorded(studies: Mapping[str, Sequence[Study]]) -> Found:
    """Return every study of ``studies``, by notebook, that has enough of a record to be read; nothing is trained."""
    pairs = [(notebook, study) for notebook, several in studies.items() for study in several]
    return {study.name: (notebook, study.runs()) for notebook, study in pairs if study.is_recorded()}


def distinct(found: Found) -> list[Run]:
    """Return all runs, each once, though several studies may share it."""
    return list({(run.content["key"], run.device): run for _, runs in found.values() for run in runs}.values())


def _hours(runs: Sequence[Run]) -> float:
    return sum(run.metrics["training_seconds"] for run in runs) / 3600


def _machines(runs: Iterable[Run]) -> str:
    return ", ".join(sorted({run.provenance["device_name"] for run in runs}))


def numbers(found: Found) -> dict[str, str]:
    """Return the LaTeX text of every key: studies, totals, measurements and published figures."""
    values: dict[str, str] = {"level": number(100 * evidence.LEVEL)}
    for name, (_, runs) in found.items():
        values |= {f"{slug(name)}/{key}": text for key, text in _of_study(runs)}
    if runs := distinct(found):
        values["total/runs"], values["total/hours"] = number(len(runs)), number(_hours(runs), 1)
        values["total/seeds/least"] = number(min(len(several.seeds) for _, several in found.values()))
        values["date"] = max(run.provenance["date"] for run in runs)
    told = claims_table(found).get("verdict", pd.Series(dtype=str)).tolist()
    values |= {f"claims/{slug(verdict)}": number(told.count(verdict)) for verdict in VERDICTS} | {
        "claims": number(len(told))
    }
    for path in sorted((runs_folder() / "measured").glob("*.json")):
        value = json.loads(path.read_text())["value"]
        values |= {f"measured/{path.stem}{key}": text for key, text in _flattened(value)}
    for key, figure in published_figures().items():
        values[f"published/{key}"] = number(figure.text)
        if ends := figure.interval():
            values[f"published/{key}/pictures"] = number(figure.pictures)
            values[f"published/{key}/low"], values[f"published/{key}/high"] = (number(end, 1) for end in ends)
    return values


def _of_study(runs: Runs) -> Iterator[tuple[str, str]]:
    """Yield the keys and texts of one study; a choice that all arms share has a key without an arm as well."""
    by_arm = runs.by_arm()
    yield "seeds", number(len(runs.seeds))
    yield "runs", number(len(runs))
    yield "hours", number(_hours(runs), 1)
    yield "device", escape(_machines(runs))
    choices = pd.DataFrame({arm: several[0].experiment.choices() for arm, several in by_arm.items()}).drop("seed")
    for choice, values in choices.iterrows():
        for arm, value in values.items():
            yield f"{slug(arm)}/{slug(choice)}", _choice(value)
        if all(value == values.iloc[0] for value in values):
            yield slug(choice), _choice(values.iloc[0])
    for metric in [m for m in runs[0].metrics if all(m in run.metrics for run in runs)]:
        digits = scale_and_digits(metric)[1]
        for arm, several in by_arm.items():
            key, (mean, half) = f"{slug(arm)}/{slug(metric)}", arm_mean_and_half(several, metric)
            if mean == mean:
                yield f"{key}/n", number(len(several))
                yield f"{key}/mean", number(mean, digits)
            if half == half:
                yield f"{key}/pm", rf"\num{{{mean:.{digits}f} \pm {half:.{digits}f}}}"


def _choice(value: Any) -> str:
    """Return one choice of an experiment, or one value of a measurement, as it stands in a sentence."""
    if value is None or isinstance(value, bool):
        return {True: "yes", False: "no", None: "none"}[value]
    if isinstance(value, int | float):
        return number(value)
    return escape(value if isinstance(value, str) else json.dumps(value))


def _flattened(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Yield the numbers and texts within a measurement, each under the path that leads to it."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _flattened(item, f"{key}/{slug(name)}")
    elif isinstance(value, list):
        if len(value) <= LONGEST_LIST:
            for position, item in enumerate(value):
                yield from _flattened(item, f"{key}/{position}")
        if value and all(type(item) is int for item in value):
            yield f"{key}/sum", number(sum(value))
    elif isinstance(value, float):
        yield key, number(float(f"{value:.4g}"))
    elif value is not None:
        yield key, _choice(value)


def claims_table(found: Found) -> pd.DataFrame:
    """Return a row per claim of the reports (data/claims.json): at which scale it was repeated, and what came of it.

    A claim is an arm and a sign: 1 for better, -1 for worse, 0 for the same. Families are those of the notebooks.
    """
    rows = {}
    for question in json.loads((DATA / "claims.json").read_text()):
        if question["study"] not in found:
            continue
        runs = found[question["study"]][1]
        judged = evidence.verdict(runs, question["metric"], question["against"])
        for arm, (words, sign) in question["claims"].items():
            d, experiment = judged[arm], runs.by_arm()[arm][0].experiment
            borne_out = sign == np.sign(d.mean) if d.separable else sign == 0 and d.low == d.high
            rows[words] = {
                "report": question["report"],
                "pictures": f"{experiment.train_size or WHOLE:,}",
                "epochs": str(experiment.epochs),
                "seeds": str(len(runs.seeds)),
                "effect in points": judged.amount(d).replace(" points", ""),
                "verdict": VERDICTS[0 if borne_out else 1 if d.separable else 2],
            }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("claim")


def studies_table(found: Found) -> pd.DataFrame:
    """Return what was trained for each study: notebook, arms, seeds, runs, device, hours."""
    rows = {
        name: {
            "notebook": notebook[:2],
            "arms": str(len(runs.arms)),
            "seeds": str(len(runs.seeds)),
            "runs": str(len(runs)),
            "device": _machines(runs),
            "hours": f"{_hours(runs):.1f}",
        }
        for name, (notebook, runs) in found.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index")


def environments_table(found: Found) -> pd.DataFrame:
    """Return on what the runs were recorded: a row per machine, versions and commit."""
    rows = []
    for run in distinct(found):
        p = run.provenance
        cores = "" if p["device"] == "cuda" else f", {p['threads']} of {p['cores']} cores"
        rows.append({"machine": p["device_name"] + cores, **p["versions"], "commit": f"`{p['commit'][:10]}`"})
    if not rows:
        return pd.DataFrame()
    table = pd.DataFrame(rows)
    return table.value_counts(sort=False).rename("runs").astype(str).reset_index().set_index("machine")


def data_table(found: Found) -> pd.DataFrame:
    """Return the SHA-256 of every array that was trained on; any copy of the data must match."""
    rows = {
        f"{run.experiment.dataset}, {name.replace('_', ' ')}": f"`{digest}`"
        for run in distinct(found)
        for name, digest in run.provenance["data_hashes"].items()
    }
    return pd.DataFrame({"SHA-256": rows})


def error_rates(runs: Mapping[str, Runs]) -> dict[str, float]:
    """Return what the report says of the rule, from the studies of several arms among ``runs``, by name.

    Every study asks of each arm whether it differs from the first one. Counted: these contrasts, and how many are
    separable by the course's rule and by its predecessor, paired t intervals with Bonferroni's correction. Simulated,
    for 3 and 6 seeds: in what share of families without any difference the rule finds one. There, the true variances
    are those that the record shows, sampling error and all, which scatter more than the true ones can.
    """
    several = {name: found for name, found in runs.items() if len(found.arms) > 1}
    spread = {name: evidence.kept_values(found, METRIC).var(ddof=1).tolist() for name, found in several.items()}
    depends = {name: [f"{variance:.3e}" for variance in variances] for name, variances in spread.items()}
    return measured("00-error-rate", lambda: _counts(several) | _simulated(spread), of=depends)


def _counts(several: Mapping[str, Runs]) -> dict[str, float]:
    contrasts = separable = paired = 0
    correlations = []  # of two arms of one study, over the seeds: what pairing by seed could gain from
    for found in several.values():
        first, values = found.arms[0], evidence.kept_values(found, METRIC)
        differences = evidence.verdict(found, METRIC, first).differences
        each = 1 - (1 - evidence.LEVEL) / len(differences)
        contrasts += len(differences)
        separable += sum(d.separable for d in differences)
        for d in differences:
            _, low, high = evidence.interval((values[d.a] - values[d.b]).dropna(), each)
            paired += low > 0 or high < 0
        table = values.corr().to_numpy()
        correlations.append(table[np.triu_indices(len(table), 1)])
    correlation = round(float(np.nanmean(np.concatenate(correlations))), 2)
    return {"correlation": correlation, "contrasts": contrasts, "separable": separable, "separable-in-pairs": paired}


def _simulated(spread: Mapping[str, Sequence[float]]) -> dict[str, float]:
    rates = {}
    for seeds in SEEDS:
        errors = {name: family_error(variances, seeds, zlib.crc32(name.encode())) for name, variances in spread.items()}
        worst = max(errors, key=errors.get)
        rates |= {f"error-{seeds}-seeds": np.mean(list(errors.values())), f"worst-{seeds}-seeds": errors[worst]}
    return {name: round(100 * float(rate), 2) for name, rate in rates.items()}


def family_error(variances: Sequence[float], seeds: int, start: int = 0, families: int = FAMILIES) -> float:
    """Return in what share of families of equal arms with these true ``variances`` the rule finds a difference."""
    arms = len(variances)
    runs, pairs = (seeds,) * arms, tuple((arm, 0) for arm in range(1, arms))
    scatter = np.broadcast_to(np.maximum(variances, 1e-12), (families, arms))
    largest = evidence.largest_t(np.random.default_rng(start), scatter, runs, pairs)
    return float((largest > evidence.critical_value(runs, pairs)).mean())
