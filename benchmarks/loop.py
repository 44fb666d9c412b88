"""Does the course's training loop pay? R2's net against the loop that tutorials show.

The tutorials' loop: a Dataset of PIL images, torchvision's transforms image by image, a DataLoader with two workers,
float32. Ours: images on the device as bytes, augmentation by the batch, channels last; then bfloat16 and
torch.compile on top. Both sides take turns, and each figure is the median of its turns.

What does augmentation cost? "augment crop+flip": by the batch against torchvision's transforms image by image;
"augment share of an epoch": seconds of it ("ours") in an epoch as it is trained here ("baseline").
"""

import statistics
import time
from collections.abc import Callable, Iterator

import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from course.bench import comparison
from helpers.data import load
from helpers.models import build
from helpers.training import Experiment, Trainer, augmentation, pick_device

BATCH, STEPS, TURNS, WARM_UP = 64, 60, 5, 10
SPEC = "crop:4 hflip:0.5"
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


class Pictures(Dataset):
    """PIL images with transforms, as in torchvision.datasets.CIFAR10."""

    def __init__(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        self.images, self.labels = images.permute(0, 2, 3, 1).numpy(), labels.tolist()
        steps = [v2.RandomCrop(32, 4), v2.RandomHorizontalFlip(), v2.ToImage()]
        self.transform = v2.Compose([*steps, v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        return self.transform(Image.fromarray(self.images[i])), self.labels[i]


def tutorial(device: torch.device, train) -> Iterator[None]:
    """Yield after each step of the tutorials' loop."""
    model = build("r2").to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    loader = DataLoader(Pictures(train.images, train.labels), BATCH, shuffle=True, num_workers=2, drop_last=True)
    while True:
        for images, labels in loader:
            loss = nn.functional.cross_entropy(model(images.to(device)), labels.to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            yield


def ours(device: torch.device, precision: str, compiled: bool) -> Iterator[None]:
    """Yield after each step of the course's loop, augmentation and shuffling included."""
    experiment = Experiment(model="r2", batch_size=BATCH, precision=precision, augmentation=SPEC)
    trainer = Trainer(experiment, load("cifar10"), device, compiled)
    draws = torch.Generator(device).manual_seed(0)
    trainer.model.train()
    while True:
        for batch in torch.randperm(len(trainer.train), device=device).split(BATCH)[:-1]:
            trainer._step(trainer.augment(trainer.train.images[batch], draws), trainer.train.labels[batch])
            yield


def rate(steps: Iterator[None], device: torch.device, count: int = STEPS) -> float:
    """Return images per second over ``count`` steps."""
    began = time.perf_counter()
    for _ in range(count):
        next(steps)
    if device.type == "cuda":
        torch.cuda.synchronize()
    return BATCH * count / (time.perf_counter() - began)


def seconds(step: Callable[[], object], device: torch.device, count: int = 40) -> float:
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


def loops(device: torch.device) -> list[dict]:
    """Return images per second of ours and of the tutorials' loop, and their ratios."""
    sides: dict[str, Callable[[], Iterator[None]]] = {
        "baseline": lambda: tutorial(device, load("cifar10").train),
        "loop fp32": lambda: ours(device, "fp32", False),
        "loop bf16 compiled": lambda: ours(device, "bf16", True),
    }
    running = {name: side() for name, side in sides.items()}
    for steps in running.values():
        rate(steps, device, WARM_UP)
    rates = {name: [] for name in running}
    for _ in range(TURNS):
        for name, steps in running.items():
            rates[name].append(rate(steps, device))
    median = {name: statistics.median(values) for name, values in rates.items()}
    theirs = median.pop("baseline")
    return [comparison(name, value, theirs, "images/s", device.type) for name, value in median.items()]


def augmenting(device: torch.device) -> list[dict]:
    """Return what augmentation costs by the batch and image by image, and its share of an epoch."""
    trainer = Trainer(
        Experiment(model="r2", batch_size=BATCH, precision="bf16", augmentation=SPEC), load("cifar10"), device, True
    )
    trainer.model.train()
    images, labels = trainer.train.images[:BATCH], trainer.train.labels[:BATCH]
    draws, augment, on_cpu = torch.Generator(device).manual_seed(0), augmentation(SPEC), images.cpu()
    one_by_one = v2.Compose([v2.RandomCrop(32, 4), v2.RandomHorizontalFlip()])

    def step() -> None:
        trainer._step(augment(images, draws), labels)

    seconds(step, device, 5)  # compiles
    batched = seconds(lambda: augment(images, draws), device)
    single = seconds(lambda: torch.stack([one_by_one(image) for image in on_cpu]), device, 5)
    whole, steps = seconds(step, device), len(trainer.train) // BATCH
    return [
        comparison("augment crop+flip", BATCH / batched, BATCH / single, "images/s", device.type),
        comparison("augment share of an epoch", steps * batched, steps * whole, "s", device.type),
    ]


def measure() -> list[dict]:
    """Return the comparisons of loops and of augmentation."""
    device = pick_device()
    return loops(device) + augmenting(device)
