"""What does augmentation cost? By the batch against image by image, and as a share of an epoch.

"augment crop+flip": images per second, ours against torchvision's transforms on one image at a time.
"augment share of an epoch": seconds of augmentation ("ours") in an epoch of R2's net as it is trained here ("baseline",
bfloat16 and compiled); their ratio is the share.
"""

import statistics
import time
from collections.abc import Callable

import torch
from torchvision.transforms import v2

from helpers.data import load
from helpers.training import Experiment, Trainer, augmentation, pick_device

BATCH, STEPS, TURNS = 64, 40, 5
SPEC = "crop:4 hflip:0.5"


def seconds(step: Callable[[], object], device: torch.device, count: int = STEPS) -> float:
    """Return the median over ``TURNS`` of the seconds that one ``step`` takes."""
    turns = []
    for _ in range(TURNS):
        began = time.perf_counter()
        for _ in range(count):
            step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        turns.append((time.perf_counter() - began) / count)
    return statistics.median(turns)


def measure() -> list[dict]:
    """Return both comparisons."""
    device = pick_device()
    experiment = Experiment(model="r2", batch_size=BATCH, precision="bf16", augmentation=SPEC)
    trainer = Trainer(experiment, load("cifar10"), device, compiled=True)
    trainer.model.train()
    images, labels = trainer.train.images[:BATCH], trainer.train.labels[:BATCH]
    draws, augment = torch.Generator(device).manual_seed(0), augmentation(SPEC)
    one_by_one = v2.Compose([v2.RandomCrop(32, 4), v2.RandomHorizontalFlip()])
    on_cpu = images.cpu()

    def step() -> None:
        trainer._step(augment(images, draws), labels)

    seconds(step, device, 5)  # compiles
    batched = seconds(lambda: augment(images, draws), device)
    single = seconds(lambda: torch.stack([one_by_one(image) for image in on_cpu]), device, 5)
    whole = seconds(step, device)
    steps = len(trainer.train) // BATCH
    where = {"device": device.type, "threads": torch.get_num_threads()}
    return [
        {
            "name": "augment crop+flip",
            "ours": round(BATCH / batched, 1),
            "baseline": round(BATCH / single, 1),
            "ratio": round(single / batched, 3),
            "unit": "images/s",
            **where,
        },
        {
            "name": "augment share of an epoch",
            "ours": round(steps * batched, 3),
            "baseline": round(steps * whole, 3),
            "ratio": round(batched / whole, 4),
            "unit": "s",
            **where,
        },
    ]
