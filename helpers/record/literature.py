"""The figures that others published, of the reports that the course starts from and beyond: data/published.json."""

import json
from dataclasses import dataclass
from decimal import Decimal
from functools import cache

from scipy import stats

from helpers.record.evidence import LEVEL
from helpers.settings import DATA


@dataclass(frozen=True)
class Published:
    """One published figure, as printed and as a number; ``pictures`` are those that an accuracy stands on, if known."""

    key: str
    text: str
    value: float
    unit: str
    note: str = ""
    pictures: int | None = None

    report = property(lambda self: self.key.split("/", 1)[0])  # its key in the bibliography, too

    def interval(self) -> tuple[float, float] | None:
        """Return the ends, in percent, of the 95 % interval of an accuracy, or None where its pictures are not known.

        Wilson's interval of a proportion: it covers the draw of the pictures, not that of the seed.
        """
        if self.pictures is None:
            return None
        right = round(self.value / 100 * self.pictures)
        ends = stats.binomtest(right, self.pictures).proportion_ci(LEVEL, method="wilson")
        return float(100 * ends.low), float(100 * ends.high)

    @property
    def with_interval(self) -> str:
        """Return the figure as printed, with its interval where that is known: "64.57 [60.7, 68.2]"."""
        ends = self.interval()
        return f"{self.text} [{ends[0]:.1f}, {ends[1]:.1f}]" if ends else self.text


@cache
def published_figures() -> dict[str, Published]:
    """Return every published figure under its key, such as "R4/test-accuracy"."""
    # A Decimal keeps the digits as they were printed: 83.00 stays 83.00.
    reports, figures = json.loads((DATA / "published.json").read_text(), parse_float=Decimal), {}
    for report, content in reports.items():
        for quantity, entry in content["figures"].items():
            key, value, unit = f"{report}/{quantity}", entry["value"], entry["unit"]
            figures[key] = Published(key, str(value), float(value), unit, entry.get("note", ""), entry.get("pictures"))
    return figures


def published(key: str) -> Published:
    """Return the published figure ``key``, such as "R4/test-accuracy"."""
    figures = published_figures()
    if key not in figures:
        near = [name for name in figures if name.startswith(key.split("/", 1)[0] + "/")] or sorted(figures)
        raise KeyError(f"data/published.json has no {key!r}; there are: {', '.join(near)}")
    return figures[key]


def published_for(prefix: str, metric: str) -> Published | None:
    """Return the figure published for a run's ``metric`` under ``prefix``, a setting such as "R0/final", or None."""
    if not any(key.startswith(f"{prefix}/") for key in published_figures()):
        published(prefix)  # says what there is
    return published_figures().get(f"{prefix}/{metric.replace('_', '-')}")
