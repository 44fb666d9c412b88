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
from string import Template
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from helpers.data import DataError, Dataset, Split, list_pictures, load, scan
from helpers.data.folder import Scan
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
        raise TryFailed(
            "COURSE_SMOKE=1 is set, and a rehearsal looks at digits alone: unset it, and ask for few epochs"
        )
    folder = Path(folder).expanduser().resolve()
    out = Path(out).expanduser().resolve() if out else pages_folder() / f"try-{folder.name}.html"
    listing, mark = list_pictures(folder), _printable(f'<meta name="generator" content="try {escape(str(folder))}">')
    if out.is_dir():
        raise TryFailed(f"{out} is a folder: name a file in it, such as --out {out / 'page.html'}")
    if out.exists() and mark not in out.read_text(encoding="utf-8", errors="replace"):
        raise TryFailed(f"{out} is there already, and is no page on {folder}: name another with --out")
    print(
        _printable(
            f"Reads {folder}: {len(listing.files):,} files in {len(listing.classes)} classes. They stay as they are."
        )
    )
    found = scan(listing, CACHE)
    _check_classes(found)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "left out, no readable images")  # the page names them
        data = load(f"folder:{folder}")
        epochs = epochs or int(np.clip(LOOKS // len(data.train), LEAST_EPOCHS, MOST_EPOCHS))
        experiment = Experiment(dataset=data.name, epochs=epochs, **RECIPE)
        of = json.dumps([data.hashes, data.classes, fingerprint(experiment.initial)])
        kept = KEPT / hashlib.sha256(of.encode()).hexdigest()[:12]
        print(_printable(f"Writes {out}. Keeps what it trains in {kept}."))
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
    kept = not_collapsed(runs) or list(runs)
    lost, (mean, low, high), others = len(runs) - len(not_collapsed(runs)), accuracy(kept), baselines(data)
    reached = [f"{escape(name)} ({_percent(value)})" for name, value in others.items() if low <= value]
    verdict = "More than colour and more than guessing: it has also learned something else that new pictures share."
    if reached:
        verdict = f"The interval reaches down to {' and '.join(reached)}: it cannot be told that it has learned more."
    bars = [_bar("the network", mean, (low, high)), *(_bar(name, value) for name, value in others.items())]
    shares = np.mean([run.confusion["test"] / _at_least_one(run.confusion["test"]) for run in kept], axis=0)  # (K, K)
    wrong = worst_mistakes(kept, data.test.labels.numpy()).head(MISTAKES)
    copies = found.duplicates()
    copies = copies[copies["copy"] != "first"].rename(columns={"group": "copy of"})
    told = {
        "name": escape(folder.name),
        "lead": f"It names the class of <b>{_percent(mean)}</b> of {len(data.test):,} pictures that it has never seen "
        f"(95 % interval {_percent(low)} to {_percent(high)}; {_trainings(len(kept))}).",
        "bars": "".join(bars),
        "verdict": verdict + (f" {_trainings(lost)} of {len(runs)} gave every picture one class." if lost else ""),
        "matrix": _matrix(shares, data),
        "mistakes": "".join(_card(folder, data, one, len(kept)) for one in wrong.itertuples()) or "<p>None.</p>",
        "curve": _source(png(plot_curves(Runs("try", kept, len(kept)))), "png"),
        "pictures": _pictures(found, data),
        "left_out": _list("cannot be read, and are left out", found.left_out.sort_values("file")),
        "copies": _list("are copies, and stay in the same part as the first", copies[["file", "copy of", "copy"]]),
        "recipe": escape(repr(runs[0].experiment)),
        "made": _made(runs),
    }
    template = Template(Path(__file__).with_suffix(".html").read_text(encoding="utf-8"))
    return _printable(template.substitute(told, mark=mark))


def _printable(text: str) -> str:  # also where a path's bytes are no UTF-8
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _percent(share: float, digits: int = 1) -> str:
    return f"{100 * share:.{digits}f}\u00a0%"


def _at_least_one(matrix: np.ndarray) -> np.ndarray:  # a class may have no test picture
    return np.maximum(matrix.sum(axis=1, keepdims=True), 1)


def _trainings(count: int) -> str:
    return "one training" if count == 1 else f"{count} trainings"


def _source(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _image(pixels: np.ndarray, kind: str, alt: str) -> str:
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return f'<img alt="{escape(alt)}" src="{_source(buffer.getvalue(), kind)}">'


def _bar(name: str, share: float, ends: tuple[float, float] = (0, 0)) -> str:
    inside = f'<b style="width:{share:.1%}"></b><i style="left:{ends[0]:.1%};width:{ends[1] - ends[0]:.1%}"></i>'
    return f'<span>{escape(name)}</span><span class="track">{inside}</span><span>{_percent(share)}</span>'


def _matrix(shares: np.ndarray, data: Dataset) -> str:
    """Return the confusion matrix in percent, unless that is too wide, and a list of the commonest mistakes."""
    names, counts = [escape(name) for name in data.classes], np.bincount(data.test.labels, minlength=len(shares))
    rows = ["<tr><td></td>" + "".join(f'<th scope="col">{name}</th>' for name in names) + "</tr>"]
    for i, row in enumerate(100 * shares):
        cells = (f'<td class="{"right" * (i == j)}" style="--share:{x:.0f}%">{x:.0f}</td>' for j, x in enumerate(row))
        rows.append(f'<tr><th scope="row">{names[i]}</th>{"".join(cells)}<td class="of">of {counts[i]}</td></tr>')
    table = f'<div class="wide"><table class="matrix">{"".join(rows)}</table></div>' if len(names) <= WIDEST else ""
    most = sorted((-shares[i, j], i, j) for i, j in np.argwhere(shares) if i != j)[:5]
    told = "".join(
        f"<li>{names[i]} taken for {names[j]}: {_percent(-share, 0)} of the time</li>" for share, i, j in most
    )
    return f"{table}<ul>{told}</ul>"


def _card(folder: Path, data: Dataset, mistake: Any, runs: int) -> str:
    """Return a mistake, a row of :func:`worst_mistakes`, as it looks, as the network sees it, and in words."""
    name, seen = str(data.test_names[mistake.picture]), data.test.images[mistake.picture].permute(1, 2, 0).numpy()
    try:
        shown = read_picture(folder / name, SIDE).pixels
    except DataError:  # moved since, or its name is no UTF-8
        shown = seen
    truth, guess = (escape(data.classes[i]) for i in (data.test.labels[mistake.picture], mistake.guess))
    by = f" by {mistake.runs} of {runs} trainings" if runs > 1 else ""
    words = f"{truth}, taken for <b>{guess}</b>{by}, {_percent(mistake.confidence, 0)} sure<br>{escape(name)}"
    pictures = _image(shown, "jpeg", name) + _image(seen, "png", "the same, 32 x 32 pixels")
    return f"<figure><div>{pictures}</div><figcaption>{words}</figcaption></figure>"


def _pictures(found: Scan, data: Dataset) -> str:
    table = found.summary()
    for name, part in {"training": data.train, "validation": data.validation, "test": data.test}.items():
        counts = np.bincount(part.labels, minlength=len(data.classes))
        table[name] = [*counts, counts.sum()]
    return table.rename_axis(None).to_html(border=0)


def _list(what: str, table: pd.DataFrame) -> str:
    shown, more = table.head(LISTED).to_html(index=False, border=0, classes="files"), len(table) - LISTED
    tail = f"<p>And {more:,} more.</p>" if more > 0 else ""
    return f"<h3>{len(table):,} files {what}</h3>{shown}{tail}" if len(table) else ""


def _made(runs: Runs) -> str:
    told, seconds = runs[0].provenance, sum(run.metrics["total_seconds"] for run in runs)
    versions = ", ".join(f"{name} {version}" for name, version in told["versions"].items())
    return escape(f"{told['date']}, {told['device_name']}, {seconds / 60:.1f} minutes of training; {versions}.")
