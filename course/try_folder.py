"""A folder of pictures in, a small network trained on it, and a page out: how good it is, and what it mistakes.

The recipe is notebook 13's: R2's network, started from what it knows of CIFAR-10. Nothing in the folder is changed.
What is trained is kept under the hash of the pictures, so the same pictures are not trained on twice.
"""

import base64
import hashlib
import json
import warnings
from collections.abc import Sequence
from html import escape
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import StrictUndefined, Template
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from helpers.data import DataError, Dataset, Split, list_pictures, load, scan
from helpers.data.folder import Scan, printable
from helpers.data.images import read_picture
from helpers.figures import plot_curves
from helpers.record import Run, Runs, arm_interval, device_kind, read_run, share_interval, train_run, write_run
from helpers.record import uncollapsed as not_collapsed
from helpers.settings import DATA, pages_folder, smoke, write_if_changed
from helpers.style import png
from helpers.training import Experiment, fingerprint

KEPT, CACHE = DATA / "tried", DATA / "cache"
RECIPE = {"model": "r2", "initial": "r2", "schedule": "OneCycleLR", "batch_size": 15, "precision": "bf16"}
RECIPE |= {"augmentation": "crop:4 hflip:0.5", "flagship": True}
# A training looks at about so many pictures, whatever their number: minutes on two cores.
LOOKS, LEAST_EPOCHS, MOST_EPOCHS = 12_000, 5, 30
LEAST_PICTURES = 3  # of a class, copies aside: one each to learn from, to validate and to test on
WIDEST, MISTAKES, LISTED, SIDE = 20, 12, 40, 128


class TryFailed(RuntimeError):
    """These pictures cannot be tried, or the page cannot be written there; says why, and what to do."""


def try_folder(folder: Path, out: Path | None = None, seeds: int = 3, epochs: int | None = None) -> Path:
    """Return the page on what networks of so many ``seeds`` make of the pictures in ``folder``.

    It is written to ``out``, by default notebooks/pages/try-NAME.html, over nothing but an older page on this folder.
    """
    if smoke():
        raise TryFailed("COURSE_SMOKE=1 is set, and a rehearsal looks at digits alone: unset it; ask for few epochs")
    folder = Path(folder).expanduser().resolve()
    out = Path(out).expanduser().resolve() if out else pages_folder() / f"try-{folder.name}.html"
    listing, mark = list_pictures(folder), printable(f'<meta name="generator" content="try {escape(str(folder))}">')
    if out.is_dir():
        raise TryFailed(f"{out} is a folder: name a file in it, such as --out {out / 'page.html'}")
    if out.exists() and mark not in out.read_text(encoding="utf-8", errors="replace"):
        raise TryFailed(f"{out} is there already, and is no page on {folder}: name another with --out")
    files = f"{len(listing.files):,} files in {len(listing.classes)} classes"
    print(printable(f"Reads {folder}: {files}. They stay as they are."))
    found = scan(listing, CACHE)
    _check_classes(found)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "left out, no readable images")  # the page names them
        data = load(f"folder:{folder}")
        epochs = epochs or int(np.clip(LOOKS // len(data.train), LEAST_EPOCHS, MOST_EPOCHS))
        experiment = Experiment(dataset=data.name, epochs=epochs, **RECIPE)
        of = json.dumps([data.hashes, data.classes, fingerprint(experiment.initial)])
        kept = KEPT / hashlib.sha256(of.encode()).hexdigest()[:12]
        print(printable(f"Writes {out}. Keeps what it trains in {kept}."))
        runs = trained([experiment.but(seed=seed) for seed in range(seeds)], kept)
    try:
        write_if_changed(out, page(folder, found, data, runs, mark))
    except OSError as error:
        raise TryFailed(f"{out} cannot be written ({error}): name another place with --out") from error
    return out


def _check_classes(found: Scan) -> None:
    """Raise TryFailed where a class has too few pictures that are no copies of one another."""
    counts = np.bincount(found.labels[np.unique(found.groups)], minlength=len(found.classes))
    few = [f"{name} has {count}" for name, count in zip(found.classes, counts, strict=True) if count < LEAST_PICTURES]
    if few:
        needs = f"a class needs {LEAST_PICTURES} different pictures that can be read, and better {10 * LEAST_PICTURES}"
        raise TryFailed(f"{needs}: {', '.join(few)}. Add pictures, or take the folder out.")


def trained(experiments: Sequence[Experiment], folder: Path) -> Runs:
    """Return the runs of ``experiments`` kept in ``folder``; what is missing is trained now, with a progress bar."""
    device, runs = device_kind(), []
    for experiment in experiments:
        run = read_run(experiment, device, "network", folder)
        if run is None or run.is_stale():
            write_run(train_run(experiment, device=device, checkpoints=folder), folder)
            (folder / f"{experiment.key}-{device}.pt").unlink(missing_ok=True)  # its checkpoint has served
            run = read_run(experiment, device, "network", folder)
        runs.append(run)
    return Runs("try", runs, len(runs))


def colour_features(split: Split, levels: int = 4) -> np.ndarray:
    """Return mean colour and shares of the colour boxes, (N, 3 + levels ** 3), as notebook 13 teaches it."""
    pixels = split.images.numpy().reshape(len(split), 3, -1).astype(int)  # (N, 3, H*W)
    red, green, blue = (pixels * levels // 256).transpose(1, 0, 2)  # (N, H*W) each
    boxes = (red * levels + green) * levels + blue  # (N, H*W)
    shares = np.array([np.bincount(row, minlength=levels**3) for row in boxes]) / pixels.shape[2]
    return np.hstack([pixels.mean(axis=2) / 255, shares])


def baselines(data: Dataset) -> dict[str, float]:
    """Return the test accuracies of colour alone, and of always guessing the commonest training class."""
    train, test = data.train.labels.numpy(), data.test.labels.numpy()
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    colour = model.fit(colour_features(data.train), train).score(colour_features(data.test), test)
    commonest = np.bincount(train).argmax()
    return {"colour alone": float(colour), f"always “{data.classes[commonest]}”": float((test == commonest).mean())}


def accuracy(runs: Sequence[Run]) -> tuple[float, float, float]:
    """Return the mean test accuracy and its 95 % interval: over seeds and pictures, or over pictures for one run.

    An interval over seeds is never narrower than Wilson's over pictures, which holds where these are few.
    """
    mean, pictures = float(np.mean([run.metrics["test_accuracy"] for run in runs])), runs[0].confusion["test"].sum()
    low, high = share_interval(round(mean * pictures), int(pictures))
    if len(runs) > 1:
        _, lower, higher = arm_interval(runs, "test_accuracy")
        low, high = max(0.0, min(low, lower)), min(1.0, max(high, higher))
    return mean, low, high


def worst_mistakes(runs: Sequence[Run], labels: np.ndarray) -> pd.DataFrame:
    """Return a wrong answer a picture, the worst first: columns picture (its position), guess, runs, confidence.

    The worst are those that most ``runs`` gave, and then the surest, 0..1; ``labels`` (N,) are the true classes.
    """
    answers = [pd.DataFrame(dict(zip(("guess", "confidence"), run.predictions["test"], strict=True))) for run in runs]
    wrong = pd.concat([answer[answer["guess"] != labels] for answer in answers]).rename_axis("picture")
    told = wrong.groupby(["picture", "guess"])["confidence"].agg(runs="size", confidence="mean").reset_index()
    return told.sort_values(["runs", "confidence"], ascending=False, kind="stable").drop_duplicates("picture")


# --- The page: one file that asks for nothing from outside. ---


def page(folder: Path, found: Scan, data: Dataset, runs: Runs, mark: str) -> str:
    """Return the page as HTML, with ``mark`` in its head."""
    whole = not_collapsed(runs)
    kept, others = whole or list(runs), baselines(data)
    mean, low, high = accuracy(kept)
    counts = np.mean([run.confusion["test"] for run in kept], axis=0)  # (K, K)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)  # a class may have no test picture
    wrong = worst_mistakes(kept, data.test.labels.numpy()).head(MISTAKES)
    copies = found.duplicates().rename(columns={"group": "copy of"})
    told = {
        **{"name": folder.name, "mark": mark, "percent": _percent, "listed": LISTED, "tests": len(data.test)},
        **{"runs": len(runs), "kept": len(kept), "lost": len(runs) - len(whole)},
        **{"mean": mean, "low": low, "high": high, "others": others},
        **{"classes": data.classes, "widest": WIDEST, "shares": shares, "commonest": _commonest(shares)},
        "counts": np.bincount(data.test.labels, minlength=len(shares)),
        "pictures": _pictures(found, data),
        "reached": [f"{name} ({_percent(value)})" for name, value in others.items() if low <= value],
        "mistakes": [_mistake(folder, data, one) for one in wrong.itertuples()],
        "curve": _source(png(plot_curves(Runs("try", kept, len(kept)))), "png"),
        "left_out": found.left_out.sort_values("file"),
        "copies": copies[copies["copy"] != "first"][["file", "copy of", "copy"]],
        "recipe": repr(runs[0].experiment),
        "provenance": runs[0].provenance,
        "minutes": sum(run.metrics["total_seconds"] for run in runs) / 60,
    }
    text = Path(__file__).with_suffix(".html").read_text(encoding="utf-8")
    return printable(Template(text, autoescape=True, undefined=StrictUndefined).render(told))


def _percent(share: float, digits: int = 1) -> str:
    return f"{100 * share:.{digits}f}\u00a0%"


def _source(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _image(pixels: np.ndarray, kind: str) -> str:
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return _source(buffer.getvalue(), kind)


def _commonest(shares: np.ndarray) -> list[tuple[int, int]]:
    """Return the five commonest mistakes of ``shares`` (K, K) of each true class: (true, guessed), the worst first."""
    return sorted(((i, j) for i, j in np.argwhere(shares) if i != j), key=lambda pair: -shares[pair])[:5]


def _mistake(folder: Path, data: Dataset, mistake: Any) -> dict[str, Any]:
    """Return a mistake, a row of :func:`worst_mistakes`, as it looks, as the network sees it, and in words."""
    file, seen = str(data.test_names[mistake.picture]), data.test.images[mistake.picture].permute(1, 2, 0).numpy()
    try:
        shown = read_picture(folder / file, SIDE).pixels
    except DataError:  # moved since, or its name is no UTF-8
        shown = seen
    truth, guess = (data.classes[i] for i in (data.test.labels[mistake.picture], mistake.guess))
    pictures = {"shown": _image(shown, "jpeg"), "seen": _image(seen, "png")}
    return mistake._asdict() | pictures | {"file": file, "truth": truth, "guess": guess}


def _pictures(found: Scan, data: Dataset) -> pd.DataFrame:
    table = found.summary()
    for name, part in {"training": data.train, "validation": data.validation, "test": data.test}.items():
        counts = np.bincount(part.labels, minlength=len(data.classes))
        table[name] = [*counts, counts.sum()]
    return table.rename_axis(None)
