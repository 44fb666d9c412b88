"""What a fresh Colab machine lacks; the set-up cell of every notebook calls ``prepare`` there."""

import os
import subprocess
import sys
import tempfile
import tomllib
from importlib import metadata
from pathlib import Path

from helpers.settings import NOTEBOOKS, ROOT


def missing() -> list[str]:
    """Return the requirements of the course of which no version is installed."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    there = {d.name.lower().replace("_", "-") for d in metadata.distributions() if d.name}
    there.add("jupyterlab")  # Colab is the notebook server itself
    return [r for r in project["dependencies"] if r.partition(">")[0].strip() not in there]


def prepare() -> None:
    """Go to the notebooks' folder, make ``helpers`` importable there, and install what is missing.

    Everything that is installed already is held at its version, so nothing that Colab ships is replaced.
    """
    os.chdir(NOTEBOOKS)
    sys.path.insert(0, str(ROOT))
    if not (wanted := missing()):
        return
    print("installing", ", ".join(wanted), file=sys.stderr)
    shipped = {f"{d.name}=={d.version}\n" for d in metadata.distributions() if d.name and d.version}
    with tempfile.TemporaryDirectory() as folder:
        held = Path(folder) / "shipped.txt"
        held.write_text("".join(sorted(shipped)))
        subprocess.run([sys.executable, "-m", "pip", "install", "-q", "-c", str(held), *wanted], check=True)
