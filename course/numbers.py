"""Every number that the report may quote, from the record: ``study/arm/figure/mean`` and the like.

Keys are lower case words joined by ``/``; what is no letter, digit, dot or hyphen in a label becomes a hyphen.
A figure has mean, half-width, low and high (of its 95 % interval), n (seeds) and pm (mean ± half-width).
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from helpers.record import (
    LEVEL,
    Run,
    Runs,
    Study,
    arm_mean_and_half,
    published_figures,
    scale_and_digits,
)
from helpers.settings import runs_folder
from helpers.show import escape, number

Studies = Mapping[str, Sequence[Study]]
# No sentence quotes from a longer list than this; a figure or a table shows it.
LONGEST_LIST = 32


def slug(label: object) -> str:
    """Return ``label`` as a part of a key."""
    return re.sub(r"[^a-z0-9.]+", "-", str(label).lower()).strip("-")


def recorded(studies: Studies) -> dict[str, tuple[str, Runs]]:
    """Return (notebook, runs) of every study with enough of a record to be read; nothing is trained."""
    found = {}
    for notebook, several in studies.items():
        for study in several:
            if study.is_recorded():
                found[study.name] = notebook, study.runs()
    return found


def distinct(found: Mapping[str, tuple[str, Runs]]) -> list[Run]:
    """Return all runs, each once, though several studies may share it."""
    return list({(run.content["key"], run.device): run for _, runs in found.values() for run in runs}.values())


def _hours(runs: Sequence[Run]) -> float:
    return sum(run.metrics["training_seconds"] for run in runs) / 3600


def numbers(studies: Studies) -> dict[str, str]:
    """Return the LaTeX text of every key: studies, totals, measurements and published figures."""
    found = recorded(studies)
    values: dict[str, str] = {"level": number(100 * LEVEL)}
    for name, (_, runs) in found.items():
        values |= {f"{slug(name)}/{key}": text for key, text in _of_study(runs)}
    values |= _totals(found)
    for path in sorted((runs_folder() / "measured").glob("*.json")):
        value = json.loads(path.read_text())["value"]
        values |= {f"measured/{path.stem}{key}": text for key, text in _flattened(value)}
    return values | dict(_published())


def _published() -> Iterator[tuple[str, str]]:
    """Yield every published figure, and where its pictures are known their number and the ends of its interval."""
    for key, figure in published_figures().items():
        yield f"published/{key}", number(figure.text)
        if ends := figure.interval():
            yield f"published/{key}/pictures", number(figure.pictures)
            for name, end in zip(("low", "high"), ends, strict=True):
                yield f"published/{key}/{name}", number(end, 1)


def _of_study(runs: Runs) -> Iterator[tuple[str, str]]:
    """Yield the keys and texts of one study."""
    by_arm = runs.by_arm()
    yield from {
        "arms": number(len(by_arm)),
        "seeds": number(len(runs.seeds)),
        "runs": number(len(runs)),
        "hours": number(_hours(runs), 1),
        "device": escape(_names(run.provenance["device_name"] for run in runs)),
        "diverged": number(sum(run.diverged is not None for run in runs)),
    }.items()
    choices = {arm: several[0].experiment.but(seed=0).choices() for arm, several in by_arm.items()}
    for arm, chosen in choices.items():
        for choice, value in chosen.items():
            yield f"{slug(arm)}/{slug(choice)}", _choice(value)
    for choice, value in next(iter(choices.values())).items():
        if all(chosen[choice] == value for chosen in choices.values()):
            yield slug(choice), _choice(value)
    metrics = [m for m in runs[0].metrics if all(m in run.metrics for run in runs)]
    for metric in metrics:
        for arm, several in by_arm.items():
            for key, text in _figure(metric, several):
                yield f"{slug(arm)}/{slug(metric)}/{key}", text


def _figure(metric: str, runs: Sequence[Run]) -> Iterator[tuple[str, str]]:
    """Yield mean, half-width, low, high, n and pm of a figure over the seeds of one arm."""
    _, digits = scale_and_digits(metric)
    mean, half = arm_mean_and_half(runs, metric)
    if mean != mean:
        return
    yield "n", number(len(runs))
    yield "mean", number(mean, digits)
    if half == half:
        yield from {
            "half-width": number(half, digits),
            "low": number(mean - half, digits),
            "high": number(mean + half, digits),
            "pm": rf"\num{{{mean:.{digits}f} \pm {half:.{digits}f}}}",
        }.items()


def _choice(value: Any) -> str:
    """Return one choice of an experiment, or one value of a measurement, as it stands in a sentence."""
    if value is None or isinstance(value, bool):
        return {True: "yes", False: "no", None: "none"}[value]
    if isinstance(value, int | float):
        return number(value)
    return escape(value if isinstance(value, str) else json.dumps(value))


def _totals(found: Mapping[str, tuple[str, Runs]]) -> dict[str, str]:
    """Return what holds for all recorded runs together: how many, how long, where, of which data."""
    runs = distinct(found)
    if not runs:
        return {}
    provenance = [run.provenance for run in runs]
    values = {
        "total/studies": number(len(found)),
        "total/runs": number(len(runs)),
        "total/seeds/least": number(min(len(r.seeds) for _, r in found.values())),
        "total/hours": number(_hours(runs), 1),
        "total/devices": escape(_names(p["device_name"] for p in provenance)),
        "total/commits": escape(_names(p["commit"][:10] for p in provenance)),
        "date": max(p["date"] for p in provenance),
    }
    for name in provenance[0]["versions"]:
        values[f"versions/{slug(name)}"] = escape(_names(p["versions"][name] for p in provenance))
    for run in runs:
        for name, digest in run.provenance["data_hashes"].items():
            values[f"data/{slug(run.experiment.dataset)}/{slug(name)}"] = digest
    return values


def _names(values: Any) -> str:
    return ", ".join(sorted(set(map(str, values))))


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


def studies_table(found: Mapping[str, tuple[str, Runs]]) -> pd.DataFrame:
    """Return what was trained for each study: notebook, arms, seeds, runs, device, hours."""
    rows = {
        name: {
            "notebook": notebook[:2],
            "arms": str(len(runs.arms)),
            "seeds": str(len(runs.seeds)),
            "runs": str(len(runs)),
            "device": _names(run.provenance["device_name"] for run in runs),
            "hours": f"{_hours(runs):.1f}",
        }
        for name, (notebook, runs) in found.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index")


def environments_table(found: Mapping[str, tuple[str, Runs]]) -> pd.DataFrame:
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


def data_table(found: Mapping[str, tuple[str, Runs]]) -> pd.DataFrame:
    """Return the SHA-256 of every array that was trained on; any copy of the data must match."""
    rows = {
        f"{run.experiment.dataset}, {name.replace('_', ' ')}": f"`{digest}`"
        for run in distinct(found)
        for name, digest in run.provenance["data_hashes"].items()
    }
    return pd.DataFrame({"SHA-256": rows})
