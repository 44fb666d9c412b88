"""The latent space of recorded runs: worked out once, kept, and read back.

Each axis is cut into 65,536 steps, so a coordinate is off by no more than 1/131,070 of the width: by 0.0015 of 200.
"""

import copy
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from helpers.data import Split, load, subset
from helpers.latent.tsne import Picture, align, embed, intermixing, kl_divergence, principal, quality
from helpers.record import Run, load_snapshot, pack, unpack
from helpers.settings import atomic_write, embeddings_folder, smoke
from helpers.training import EVALUATION_BATCH, normalise, pick_device, predict, training_split

STEPS = 2**16 - 1


def quantised(Y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return ``Y`` (N, 2) in steps, uint16 (N, 2), and the offset and size of a step, float64 (2,) each."""
    Y = np.asarray(Y, dtype=np.float64)
    offset = Y.min(0)
    scale = (Y.max(0) - offset) / STEPS
    return np.rint((Y - offset) / scale).astype(np.uint16), offset, scale


def save_coordinates(path: Path, Y: np.ndarray, about: Mapping[str, Any]) -> None:
    """Write ``Y`` (N, 2) and ``about``, plain values as in JSON, to ``path`` (.npz): the same bytes for the same."""
    steps, offset, scale = quantised(Y)
    note = {"about": about, "offset": offset.tolist(), "scale": scale.tolist()}
    buffer = BytesIO()
    # Columns apart, low bytes from high ones: only the high bytes have a pattern that compresses.
    planes = np.ascontiguousarray(steps.T.astype("<u2")).view(np.uint8).reshape(2, len(steps), 2).transpose(0, 2, 1)
    arrays = {"planes": np.ascontiguousarray(planes), "note": np.array(json.dumps(note, sort_keys=True))}
    np.savez_compressed(buffer, allow_pickle=False, **arrays, sha256=np.array(_digest(steps, note)))
    atomic_write(path, buffer.getvalue())


def load_coordinates(path: Path) -> tuple[np.ndarray, dict[str, Any]]:
    """Return the coordinates float32 (N, 2) in ``path``, and what was noted. Raises ValueError if it is damaged."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            planes, note, digest = stored["planes"], json.loads(str(stored["note"])), str(stored["sha256"])
        steps = np.ascontiguousarray(planes.transpose(0, 2, 1)).view("<u2")[..., 0].T  # (N, 2)
        if _digest(steps, note) != digest:
            raise ValueError("its content has another SHA-256 than it says")
    except Exception as error:  # what a damaged archive raises depends on where the damage is
        raise ValueError(f"{path} is damaged ({error}); take it from the repository again") from error
    return (steps * np.asarray(note["scale"]) + np.asarray(note["offset"])).astype(np.float32), note["about"]


def _digest(steps: np.ndarray, note: Mapping[str, Any]) -> str:
    text = json.dumps(note, sort_keys=True).encode()
    return hashlib.sha256(steps.astype("<u2").tobytes() + text).hexdigest()


def latents(model: nn.Module, images: Tensor, layers: str | Sequence[str]) -> dict[str, Tensor]:
    """Return the named layers' outputs, {name: tensor (N, …)}, in evaluation mode and without gradients.

    ``images`` are what the net is trained on: normalised floats (N, 3, H, W), all in one batch. Names are dotted
    ("flatten", "block1.conv2"). ValueError lists the layers if one of them is unknown.
    """
    names = [layers] if isinstance(layers, str) else list(layers)
    copied = copy.deepcopy(model).eval()  # so that hooks and mode go with it
    modules = dict(copied.named_modules())
    if unknown := [name for name in names if not name or name not in modules]:
        choices = ", ".join(name for name in modules if name)
        raise ValueError(f"the net has no layer {', '.join(map(repr, unknown))}; its layers are: {choices}")
    kept: dict[str, Tensor] = {}

    def keep(name: str, module: nn.Module, inputs: tuple, output: Tensor) -> None:
        kept[name] = output.clone()  # a copy, as an activation in place may follow

    for name in names:
        modules[name].register_forward_hook(partial(keep, name))
    with torch.no_grad():
        copied(images)
    return {name: kept[name] for name in names}


def split_latents(
    model: nn.Module,
    split: Split,
    mean: Tensor,
    std: Tensor,
    layers: str | Sequence[str],
    *,
    batch_size: int = EVALUATION_BATCH,
) -> dict[str, np.ndarray]:
    """Return the named layers' outputs for all images of ``split``, {name: float32 (N, D)}, in order, on the CPU."""
    device = next(model.parameters()).device
    parts: dict[str, list[Tensor]] = {}
    for images in split.images.split(batch_size):
        seen = normalise(images.to(device), mean.to(device), std.to(device))
        for name, output in latents(model, seen, layers).items():
            parts.setdefault(name, []).append(output.flatten(1).float().cpu())  # (B, …) -> (B, D)
    return {name: torch.cat(outputs).numpy() for name, outputs in parts.items()}


def pictures(run: Run, layer: str, epochs: Iterable[int], **choices: Any) -> list[Picture]:
    """Return the :func:`make_picture` after each of ``epochs``, started from the one before: read, or made and kept."""
    made: list[Picture] = []
    for epoch in epochs:
        after = made[-1] if made else None
        path = _path(run, layer, epoch, after=after, **choices)
        if not path.is_file():
            new = make_picture(run, layer, epoch, after=after, **choices)
            save_coordinates(path, new.coordinates, new.about)
        # Read back also when it was just made: a coordinate is the same the first time and ever after.
        made.append(Picture(*load_coordinates(path)))
    return made


def make_picture(
    run: Run, layer: str, epoch: int, *, points: int | None = None, after: Picture | None = None, **parameters: Any
) -> Picture:
    """Return the t-SNE picture, made now, of ``layer`` after ``epoch`` epochs of ``run``; ``parameters`` are embed's.

    The images are those that the run learned from, or ``points`` of them, stratified. ``after``, a picture of the same
    images, is where this one starts from and what it is turned to. The run's seed is the embedding's.
    """
    data, split = load(run.experiment.dataset), pictured(run, points)
    network = load_snapshot(run, epoch).to(pick_device())
    X = split_latents(network, split, data.mean, data.std, layer)[layer]
    if smoke():  # a rehearsal shows that it works, not what comes of it
        parameters["iterations"] = min(parameters.get("iterations", 60), 60)
        if "perplexity" in parameters:  # its few pictures bear no large one
            parameters["perplexity"] = min(parameters["perplexity"], (len(X) - 1) // 3)
    made = embed(X, **{"seed": run.seed, "initialization": after and after.coordinates, **parameters})
    Y = made.coordinates if after is None else align(made.coordinates, after.coordinates)
    labels, about = split.labels.cpu().numpy(), made.about
    kl = about.pop("kl")
    if kl is None:  # the backend's own where it has one: to work it out again takes as long as the embedding
        kl = kl_divergence(principal(X, about["parameters"]["dimensions"]), Y, about["parameters"]["perplexity"])
    about |= {
        **{"run": run.content["key"], "device": run.device, "layer": layer, "epoch": epoch},
        "after": after and after.about["epoch"],
        "quality": {name: round(value, 5) for name, value in {**quality(X, Y, labels), "kl": kl}.items()},
        "mixing": [(one, other, round(share, 5)) for one, other, share in intermixing(Y, labels, data.classes)],
    }
    return Picture(Y, about)


def answers(run: Run, epoch: int, *, points: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return the true classes and those named after ``epoch`` epochs, uint8 (N,), as :func:`pictured`; read if kept."""
    path = _path(run, "answers", epoch, points).with_suffix(".json")
    if not path.is_file():
        data, split = load(run.experiment.dataset), pictured(run, points)
        named = predict(load_snapshot(run, epoch).to(pick_device()), split, data.mean, data.std).argmax(1)
        kept = {"labels": pack(split.labels.cpu().numpy()), "answers": pack(named.numpy())}
        atomic_write(path, json.dumps(kept) + "\n")
    kept = json.loads(path.read_text())
    return unpack(kept["labels"]), unpack(kept["answers"])


def pictured(run: Run, points: int | None = None) -> Split:
    """Return the images that a picture of so many ``points`` shows, in its order; needs the data set."""
    split = training_split(run.experiment, load(run.experiment.dataset))
    return split if points is None else subset(split, min(points, len(split)), seed=0)


def _path(
    run: Run, layer: str, epoch: int, points: int | None = None, after: Picture | None = None, **parameters: Any
) -> Path:
    """Return the file for these choices: those that differ give another name, so none is ever taken for another."""
    choices = {"points": points, "after": after and after.about["epoch"], **parameters}
    digest = hashlib.sha256(json.dumps(choices, sort_keys=True).encode()).hexdigest()[:8]
    return embeddings_folder() / f"{run.content['key']}-{run.device}" / f"{layer}-{epoch:03}-{digest}.npz"
