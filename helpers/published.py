"""The figures that others published, of the reports that the course starts from and beyond: data/published.json."""

import json
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from typing import Any

from helpers.settings import DATA


@dataclass(frozen=True)
class Published:
    """One published figure: its value, as printed and as a number, its unit, and what is said about it."""

    key: str
    text: str
    value: float
    unit: str
    note: str = ""

    @property
    def report(self) -> str:
        """Return the key of the report, such as R0, which is its key in the bibliography, too."""
        return self.key.split("/", 1)[0]


@cache
def published_reports() -> dict[str, Any]:
    """Return data/published.json: per report, how to cite it and its figures by quantity."""
    # A Decimal keeps the digits as they were printed: 83.00 stays 83.00.
    return json.loads((DATA / "published.json").read_text(), parse_float=Decimal)


@cache
def published_figures() -> dict[str, Published]:
    """Return every published figure under its key, such as "R4/test-accuracy"."""
    figures = {}
    for report, content in published_reports().items():
        for quantity, entry in content["figures"].items():
            key = f"{report}/{quantity}"
            value = entry["value"]
            figures[key] = Published(key, str(value), float(value), entry["unit"], entry.get("note", ""))
    return figures


def published(key: str) -> Published:
    """Return the published figure ``key``, such as "R4/test-accuracy".

    Raises:
        KeyError: there is none; the message lists those of the same report.
    """
    figures = published_figures()
    if key not in figures:
        near = [name for name in figures if name.startswith(key.split("/", 1)[0] + "/")] or sorted(figures)
        raise KeyError(f"data/published.json has no {key!r}; there are: {', '.join(near)}")
    return figures[key]


def published_for(prefix: str, metric: str) -> Published | None:
    """Return the published figure of the same name as a run's ``metric``, or None where none was published.

    ``prefix`` names a published net or setting: with "R0/final", "test_accuracy" is
    "R0/final/test-accuracy".

    Raises:
        KeyError: nothing at all is published under ``prefix``.
    """
    if not any(key.startswith(f"{prefix}/") for key in published_figures()):
        published(prefix)
    return published_figures().get(f"{prefix}/{metric.replace('_', '-')}")
