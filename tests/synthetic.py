"""Runs that nobody trained: records of plausible shape, made from a formula, to draw and to print."""

import numpy as np

from helpers.record import Run, Runs, pack
from helpers.record.recorder import expected_calibration_error, reliability
from helpers.training import Experiment

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
ARMS = {"R0 final": ("r0-final", 0.76), "R2": ("r2", 0.83), "R4": ("r4", 0.65)}


def synthetic_run(arm: str, model: str, accuracy: float, seed: int, epochs: int = 15) -> Run:
    rng = np.random.default_rng([seed, len(arm), ord(arm[-1])])
    number = np.arange(1, epochs + 1)
    validation = accuracy * (1 - np.exp(-number / 4)) + rng.normal(0, 0.004, epochs)
    steps = np.arange(10.5, 20 * epochs, 2)
    matrices = {}
    for split, images in (("train", 450), ("validation", 50), ("test", 100)):
        right = np.round(images * np.clip(accuracy + rng.normal(0, 0.02, 10), 0, 1)).astype(int)
        matrix = np.diag(right)
        matrix[np.arange(10), (np.arange(10) + 2) % 10] += images - right
        matrices[split] = matrix.tolist()
    guesses = [np.repeat(np.arange(10), row) for row in matrices["test"]]  # pictures lie class by class
    metrics = {"epochs": epochs, "best_epoch": epochs, "parameters": 81574, "training_seconds": 22.0 * epochs}
    for split, matrix in matrices.items():
        metrics[f"{split}_accuracy"] = float(np.trace(matrix) / np.sum(matrix))
        metrics[f"{split}_loss"] = 1 - metrics[f"{split}_accuracy"]
    sure = np.clip(accuracy + rng.normal(0, 0.15, 500), 0.1, 1)
    curve = reliability(sure, rng.random(500) < sure - 0.05)
    metrics["validation_calibration_error"] = expected_calibration_error(curve)
    conv = {
        "layer": "conv1",
        "type": "Conv2d",
        "output_shape": [6, 30, 30],
        "parameters": 168,
        "multiply_adds": 145_800,
    }
    fc = {"layer": "fc", "type": "Linear", "output_shape": [10], "parameters": 81_406, "multiply_adds": 81_396}
    experiment = Experiment(model=model, epochs=epochs, seed=seed, flagship=True, augmentation="crop:4 hflip:0.5")
    history = {"epoch": number.tolist(), "lr": [1e-3] * epochs, "seconds": [22.0] * epochs}
    for split, shares in (("train", validation + 0.03), ("validation", validation)):
        history |= {f"{split}_loss": (2 - 2 * shares).tolist(), f"{split}_accuracy": shares.tolist()}
    provenance = {"device": "cpu", "device_name": "Some & Other_Processor", "cores": 2, "threads": 1}
    provenance |= {"data_source": "archives", "data_hashes": {"train_images": "ab" * 32, "split": "cd" * 32}}
    provenance["versions"] = {"python": "3.11.2", "torch": "2.15.0", "torchvision": "0.29.2", "numpy": "2.4.6"}
    provenance |= {"commit": "0123456789abcdef", "date": "2026-11-20"}
    loss = np.interp(steps / 20, [0, *number], [2.3, *history["train_loss"]]) + rng.normal(0, 0.05, len(steps))
    content = {
        "experiment": experiment.choices(),
        "key": experiment.key,
        "classes": list(CLASSES),
        "metrics": metrics,
        "history": history,
        "iterations": {"step": steps.tolist(), "loss": loss.tolist()},
        "confusion": matrices,
        "calibration": {"validation": curve},
        "structure": [conv, fc],
        "predictions": {"test": {"labels": pack(np.concatenate(guesses)), "confidence": pack(np.full(1_000, 200))}},
        "diverged": None,
        "provenance": provenance,
    }
    return Run(content, arm)


def synthetic_runs(*arms: str, seeds: int = 3, epochs: dict[int, int] | None = None) -> Runs:
    """Return runs of some arms of ARMS (all by default); ``epochs`` gives the last epoch of single seeds."""
    runs = [
        synthetic_run(arm, *ARMS[arm], seed=seed, epochs=(epochs or {}).get(seed, 15))
        for arm in arms or ARMS
        for seed in range(seeds)
    ]
    return Runs("base-model", runs, seeds)


def broken_off(run: Run) -> Run:
    nothing = {name: [] for name in run.history}
    metrics = run.metrics | {"train_loss": float("nan"), "validation_loss": float("nan"), "epochs": 0}
    changes = {"history": nothing, "iterations": {"step": [], "loss": []}, "metrics": metrics, "diverged": "at once"}
    return Run({**run.content, **changes}, run.arm)


def changed_run(run: Run, arm: str, metrics: dict | None = None, **choices) -> Run:
    """Return ``run`` as if it were of another arm, with other choices and other final figures."""
    experiment = run.experiment.but(**choices)
    changes = {"experiment": experiment.choices(), "key": experiment.key, "metrics": run.metrics | (metrics or {})}
    return Run({**run.content, **changes}, arm)
