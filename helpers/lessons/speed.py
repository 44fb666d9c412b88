"""What the benchmarks measured, as a table."""

import json
from pathlib import Path

import pandas as pd

from helpers.settings import DATA

RESULTS = DATA / "bench.json"


def speed_table(*names: str, results: Path = RESULTS) -> pd.DataFrame:
    """Return the kept comparisons whose names begin with one of ``names``; "times as fast" is above 1 where ours wins.

    Raises:
        LookupError: there is none; the message says how to measure it.
    """
    kept = json.loads(results.read_text()) if results.is_file() else []
    rows = [
        {
            "benchmark": row["name"],
            "usual way": _printed(row["baseline"]),
            "here": _printed(row["ours"]),
            "unit": row["unit"],
            "times as fast": f"{row['ratio']:.2f}",
            "device": row["device"],
        }
        for row in kept
        if row["name"].startswith(names)
    ]
    if not rows:
        raise LookupError(f"nothing measured is called {' or '.join(names)}; `make bench` measures")
    return pd.DataFrame(rows).set_index("benchmark")


def _printed(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"
