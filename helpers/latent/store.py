"""Pictures of what a run's network sees at a stage of its training: embedded once, then read from data/embeddings."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from helpers.coordinates import load_coordinates, save_coordinates
from helpers.data import Dataset, Split, load, subset
from helpers.embedding import embed
from helpers.files import atomic_write
from helpers.projection import align, intermixing, quality
from helpers.recipe import training_split
from helpers.run import Run, load_snapshot, pack, unpack
from helpers.settings import embeddings_folder, smoke
from helpers.split_latents import split_latents
from helpers.train import pick_device, predict

REHEARSED = 250  # iterations in a rehearsal


@dataclass(frozen=True)
class Picture:
    """An embedding of one layer's latents of a run's training images, and what is known about it.

    ``coordinates``: float32 (N, 2), in the order of the training split; ``about``: plain values, among them ``run``
    (the key of its record), ``layer``, ``epoch``, ``backend``, ``parameters``, ``seconds``, ``quality`` (see
    ``projection.quality``) and ``mixing`` (pairs of classes with the share of neighbours that they exchange).
    """

    coordinates: np.ndarray
    about: Mapping[str, Any]

    @property
    def quality(self) -> dict[str, float]:
        """Return the figures of merit by name."""
        return self.about["quality"]

    @property
    def mixing(self) -> dict[tuple[str, str], float]:
        """Return how much each pair of classes mixes, the most first."""
        return {(one, other): share for one, other, share in self.about["mixing"]}


def picture(
    run: Run, layer: str, epoch: int, *, points: int | None = None, after: Picture | None = None, **parameters: Any
) -> Picture:
    """Return the t-SNE picture of ``layer`` after ``epoch`` epochs of ``run``, read, or made now and kept.

    The images are those that the run learned from, or ``points`` of them, stratified. ``after``, a picture of the same
    images, is where this one starts from and what it is turned to. The run's seed is the embedding's, and
    ``parameters`` are those of :func:`helpers.embedding.embed`.

    Raises:
        FileNotFoundError: it was not made yet, and the run's weights are not here.
        ValueError: an unknown layer, unusable parameters, or a damaged file.
    """
    path = _path(run, layer, epoch, points, after, parameters)
    if not path.is_file():
        made = make_picture(run, layer, epoch, points=points, after=after, **parameters)
        save_coordinates(path, made.coordinates, dict(made.about))
    # Read back also when it was just made: a coordinate is the same the first time and ever after.
    return Picture(*load_coordinates(path))


def pictures(run: Run, layer: str, epochs: Iterable[int], **choices: Any) -> list[Picture]:
    """Return the :func:`picture` after each of ``epochs``, each one started from and turned to the one before."""
    made: list[Picture] = []
    for epoch in epochs:
        made.append(picture(run, layer, epoch, after=made[-1] if made else None, **choices))
    return made


def make_picture(
    run: Run, layer: str, epoch: int, *, points: int | None = None, after: Picture | None = None, **parameters: Any
) -> Picture:
    """Return what :func:`picture` does, made now and not kept."""
    network, data, split = _scene(run, epoch, points)
    X = split_latents(network, split, data.mean, data.std, layer)[layer]
    start = {} if after is None else {"initialization": after.coordinates}
    if smoke():  # a rehearsal shows that it works, not what comes of it
        parameters["iterations"] = min(parameters.get("iterations", REHEARSED), REHEARSED)
        if "perplexity" in parameters:  # its few pictures bear no large one
            parameters["perplexity"] = min(parameters["perplexity"], (len(X) - 1) // 3)
    made = embed(X, **{"seed": run.seed, "verbose": False, **start, **parameters})
    Y = made.coordinates if after is None else align(made.coordinates, after.coordinates)
    labels = split.labels.cpu().numpy()
    # The backend's own divergence where it has one: to work it out again takes as long as the embedding.
    perplexity = made.parameters["perplexity"] if made.kl is None else None
    figures = quality(X, Y, labels, perplexity=perplexity, pca_dimensions=made.parameters["dimensions"])
    figures |= {} if made.kl is None else {"kl": made.kl}
    about = {
        "run": run.content["key"],
        "device": run.device,
        "layer": layer,
        "epoch": epoch,
        "after": None if after is None else after.about["epoch"],
        "backend": made.backend,
        "parameters": made.parameters,
        "repeatable": made.repeatable,
        "seconds": round(made.seconds, 2),
        "quality": {name: round(value, 5) for name, value in figures.items()},
        "mixing": [(one, other, round(share, 5)) for one, other, share in intermixing(Y, labels, data.classes)],
    }
    return Picture(Y, about)


def answers(run: Run, epoch: int, *, points: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return the true classes and those that the network named after ``epoch`` epochs, uint8 (N,) each.

    In the order of a :func:`picture` of as many ``points``; read, or computed now and kept.

    Raises:
        FileNotFoundError: they were not computed yet, and the run's weights are not here.
    """
    path = _path(run, "answers", epoch, points, None, {}).with_suffix(".json")
    if not path.is_file():
        network, data, split = _scene(run, epoch, points)
        named = predict(network, split, data.mean, data.std).argmax(1)
        kept = {"labels": pack(split.labels.cpu().numpy()), "answers": pack(named.numpy())}
        atomic_write(path, json.dumps(kept) + "\n")
    kept = json.loads(path.read_text())
    return unpack(kept["labels"]), unpack(kept["answers"])


def pictured(run: Run, points: int | None = None) -> Split:
    """Return the images that a :func:`picture` of so many ``points`` shows, in its order; needs the data set."""
    return _images(run, load(run.experiment.dataset), points)


def _images(run: Run, data: Dataset, points: int | None) -> Split:
    split = training_split(run.experiment, data)
    return split if points is None else subset(split, min(points, len(split)), seed=0)


def _scene(run: Run, epoch: int, points: int | None) -> tuple[nn.Module, Dataset, Split]:
    data = load(run.experiment.dataset)
    return load_snapshot(run, epoch).to(pick_device()), data, _images(run, data, points)


def _path(
    run: Run, layer: str, epoch: int, points: int | None, after: Picture | None, parameters: Mapping[str, Any]
) -> Path:
    """Return the file for these choices: those that differ give another name, so none is ever taken for another."""
    choices = {"points": points, "after": after and after.about["epoch"], **parameters}
    digest = hashlib.sha256(json.dumps(choices, sort_keys=True).encode()).hexdigest()[:8]
    return embeddings_folder() / f"{run.content['key']}-{run.device}" / f"{layer}-{epoch:03}-{digest}.npz"
