"""Does the course's training loop pay? R2's net against the loop that tutorials show; and how fast is it on a GPU?

"loop": the tutorials' has a Dataset of PIL images, torchvision's transforms image by image, a DataLoader with two
workers, float32. Ours has images on the device as bytes, augmentation by the batch, channels last; then bfloat16 and
torch.compile on top. All take turns, and each figure is the median of its turns.

"augment crop+flip": by the batch against torchvision's transforms image by image. "augment share of an epoch": seconds
of it ("ours") in an epoch as it is trained here ("baseline").

"fast94", on a GPU alone: seconds to 94 % of validation accuracy with the network made for it, the mean over ten seeds
of whole trainings, after one that compiles, beside the published 2.6 s of that design on an A100; and seconds per epoch
of R2's net, beside the half second that the course asks for.
"""

import statistics
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial

import torch
from PIL import Image
from torch import nn
from torch.utils.benchmark import Timer
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2
from tqdm import tqdm

from helpers.data import Split, load
from helpers.models import build
from helpers.record import published
from helpers.training import Experiment, Trainer, augmentation, pick_device

TURNS, SECONDS = 5, 2.0  # of each side, and how long a turn takes at least
R2 = Experiment(model="r2", batch_size=64, precision="bf16", augmentation="crop:4 hflip:0.5")
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
SEEDS, GOAL, HALF_A_SECOND = 10, 0.94, 0.5
FAST_R2 = Experiment(model="r2", batch_size=512, precision="bf16", augmentation="crop:4 hflip", epochs=6)
FAST = Experiment(
    model="fast94",
    optimizer="SGD",
    optimizer_options={"momentum": 0.85, "nesterov": True, "weight_decay": 1.3e-3},
    lr=1.5,
    schedule="OneCycleLR",
    schedule_options={"cycle_momentum": False, "pct_start": 0.2},
    batch_size=1024,
    loss_options={"label_smoothing": 0.2},
    augmentation="crop:2 altflip",
    epochs=14,
    precision="bf16",
)


def duration(step: Callable[[], object], seconds: float) -> float:
    """Return the mean seconds that ``step`` takes, a GPU's work included, over at least so many ``seconds``."""
    for _ in range(10):  # the first of them compile
        step()
    timer = Timer("step()", globals={"step": step}, num_threads=torch.get_num_threads())
    return timer.blocked_autorange(min_run_time=seconds).mean


def training(experiment: Experiment, device: torch.device, compiled: bool | None) -> Iterator[None]:
    """Yield after each step of the course's loop on CIFAR-10, augmentation and shuffling included."""
    trainer = Trainer(experiment, load("cifar10"), device, compiled)
    draws = torch.Generator(device).manual_seed(0)
    trainer.model.train()
    while True:
        for batch in torch.randperm(len(trainer.train), device=device).split(trainer.batch)[: trainer.steps]:
            trainer._step(trainer.augment(trainer.train.images[batch], draws), trainer.train.labels[batch])
            yield


class Pictures(Dataset):
    """PIL images with transforms, as in torchvision.datasets.CIFAR10."""

    def __init__(self, split: Split) -> None:
        self.images, self.labels = split.images.permute(0, 2, 3, 1).numpy(), split.labels.tolist()
        steps = [v2.RandomCrop(32, 4), v2.RandomHorizontalFlip(), v2.ToImage()]
        self.transform = v2.Compose([*steps, v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        return self.transform(Image.fromarray(self.images[i])), self.labels[i]


def tutorial(device: torch.device) -> Iterator[None]:
    """Yield after each step of the tutorials' loop."""
    model = build("r2").to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    loader = DataLoader(Pictures(load("cifar10").train), R2.batch_size, shuffle=True, num_workers=2, drop_last=True)
    while True:
        for images, labels in loader:
            loss = nn.functional.cross_entropy(model(images.to(device)), labels.to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            yield


def loops(device: torch.device) -> list[tuple]:
    """Return images per second of ours and of the tutorials' loop, and their ratios."""
    sides = {
        "baseline": tutorial(device),
        "loop fp32": training(R2.but(precision="fp32"), device, compiled=False),
        "loop bf16 compiled": training(R2, device, compiled=True),
    }
    turns = [{name: duration(partial(next, side), SECONDS) for name, side in sides.items()} for _ in range(TURNS)]
    rates = {name: R2.batch_size / statistics.median(turn[name] for turn in turns) for name in sides}
    theirs = rates.pop("baseline")
    return [(name, ours, theirs, "images/s", device.type) for name, ours in rates.items()]


def augmenting(device: torch.device) -> list[tuple]:
    """Return what augmentation costs by the batch and image by image, and its share of an epoch."""
    train, size = load("cifar10").train, R2.batch_size
    on_cpu, images = train.images[:size], train.images[:size].to(device)
    draws, augment = torch.Generator(device).manual_seed(0), augmentation(R2.augmentation)
    one_by_one = v2.Compose([v2.RandomCrop(32, 4), v2.RandomHorizontalFlip()])
    batched = duration(lambda: augment(images, draws), SECONDS)
    single = duration(lambda: torch.stack([one_by_one(image) for image in on_cpu]), SECONDS)
    whole, steps = duration(partial(next, training(R2, device, compiled=True)), SECONDS), len(train) // size
    return [
        ("augment crop+flip", size / batched, size / single, "images/s", device.type),
        ("augment share of an epoch", steps * batched, steps * whole, "s", device.type),
    ]


def train(trainer: Trainer, seed: int) -> float:
    """Return the seconds of a whole training from the weights of ``seed``, validation and all, by the compiled step."""
    fresh = Trainer(trainer.experiment.but(seed=seed), load("cifar10"), trainer.device, False)
    torch.cuda.synchronize()
    began = time.perf_counter()
    trainer.restore(fresh.state())
    trainer.experiment, trainer.sides = fresh.experiment, fresh.sides
    for number in range(1, trainer.experiment.epochs + 1):
        trainer.epoch(number, tqdm(disable=True))
    torch.cuda.synchronize()
    return time.perf_counter() - began


def fast94() -> list[tuple]:
    """Return seconds to 94 % beside the published ones, and R2's seconds per epoch; nothing without a GPU."""
    if not torch.cuda.is_available():
        print("fast94 needs a GPU, and there is none here: it is not measured", file=sys.stderr)
        return []
    trainer, r2 = (Trainer(experiment, load("cifar10"), torch.device("cuda"), True) for experiment in (FAST, FAST_R2))
    for each in (trainer, r2):
        train(each, SEEDS)  # compiles
    seconds, reached = [], []
    for seed in range(SEEDS):
        seconds.append(train(trainer, seed))
        reached.append(trainer.fit.history["validation_accuracy"][-1])
    train(r2, 0)
    mean, accuracy = statistics.mean(seconds), statistics.mean(reached)
    epoch = statistics.median(r2.fit.history["seconds"])
    what = "reached" if accuracy >= GOAL else "missed"
    name = f"fast94 {FAST.epochs} epochs, {GOAL:.0%} {what}: mean validation accuracy {accuracy:.2%} of {SEEDS} seeds"
    theirs, less_is_better = published("Jordan2024/94/seconds").value, True
    return [
        (name, mean, theirs, "seconds a training", "cuda", less_is_better),
        ("fast94 epoch of R2's net", epoch, HALF_A_SECOND, "seconds an epoch", "cuda", less_is_better),
    ]


def measure() -> list[tuple]:
    """Return the comparisons of loops and of augmentation, and on a GPU those of speed records."""
    device = pick_device()
    return loops(device) + augmenting(device) + fast94()
