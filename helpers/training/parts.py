"""What the choices of an experiment mean in PyTorch: its images, loss, optimizer, schedule and average of weights."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from helpers.data import Dataset, Split, class_weights, subset
from helpers.training.experiment import LOSSES, OPTIMIZERS, SCHEDULES, Experiment

# Schedules that torch defines per step; all others are per epoch.
PER_STEP_SCHEDULES = ("OneCycleLR", "CyclicLR")


def training_split(experiment: Experiment, data: Dataset) -> Split:
    """Return the images that ``experiment`` learns from: the training split, or a stratified part of it."""
    return data.train if experiment.train_size is None else subset(data.train, experiment.train_size, seed=0)


def normalise(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Return uint8 ``images`` (N, 3, H, W) as floats of mean 0 and deviation 1 per channel, channels last."""
    scaled = images.to(memory_format=torch.channels_last).float()
    return scaled.mul_((1 / (255 * std)).view(1, 3, 1, 1)).sub_((mean / std).view(1, 3, 1, 1))


def mixture(images: Tensor, labels: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Return each image times ``share`` plus another of its batch times the rest, and the other's label (mixup).

    The partner is the image at the opposite place of the batch, whose order is random already. Images come as uint8
    (N, C, H, W) and leave as floats on the same scale. The loss is mixed like the images (Zhang et al., 2018).
    """
    pictures = images.float()
    return pictures.mul(share).add_(pictures.flip(0), alpha=1 - share), labels.flip(0)


def criterion(experiment: Experiment, classes: int, learned: Split | None = None) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the experiment's loss as a function of logits (N, K) and class numbers (N,).

    ``learned`` is the split that is learned from, which class weights are worked out of; torch then divides the
    weighted sum over a batch by the sum of its weights. Raises ValueError for class weights without it.
    """
    options = dict(experiment.loss_options)
    if experiment.loss == "KLDivLoss":
        options.setdefault("reduction", "batchmean")  # the mean over images: what the divergence means
    if experiment.class_weights:
        if learned is None:
            raise ValueError(f"class_weights={experiment.class_weights!r} needs the images that are learned from")
        options["weight"] = torch.tensor(class_weights(learned.labels.cpu().numpy()))
    # Figures are worked out on the CPU, wherever the training is.
    losses = {kind: getattr(nn, experiment.loss)(**options).to(kind) for kind in _kinds(learned)}
    transform, targets = LOSSES[experiment.loss]

    def compute(logits: Tensor, labels: Tensor) -> Tensor:
        output = logits if transform == "logits" else getattr(F, transform)(logits, dim=1)
        loss = losses.get(output.device.type, losses["cpu"])
        return loss(output, F.one_hot(labels, classes).to(output.dtype) if targets == "one_hot" else labels)

    return compute


def _kinds(split: Split | None) -> set[str]:
    return {"cpu"} if split is None else {"cpu", split.labels.device.type}


def optimizer(experiment: Experiment, model: nn.Module) -> torch.optim.Optimizer:
    """Return the experiment's optimizer of ``model``'s parameters."""
    cls = OPTIMIZERS[experiment.optimizer]
    options = dict(experiment.optimizer_options)
    if cls in (torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD, torch.optim.Adagrad):
        options.setdefault("fused", True)  # one kernel for all parameters: the same update, fewer passes
    return cls(model.parameters(), lr=experiment.lr, **options)


def schedule(experiment: Experiment, optimizer: torch.optim.Optimizer, steps: int) -> Any | None:
    """Return the schedule of the learning rate, for epochs of so many steps, or None for a constant one."""
    if experiment.schedule == "constant":
        return None
    options = dict(experiment.schedule_options)
    if experiment.schedule == "OneCycleLR":
        options |= {"max_lr": experiment.lr, "total_steps": steps * experiment.epochs}
    elif experiment.schedule == "CyclicLR":
        options |= {"max_lr": experiment.lr}
    elif experiment.schedule == "CosineAnnealingLR":
        options.setdefault("T_max", experiment.epochs)
    return SCHEDULES[experiment.schedule](optimizer, **options)


def moving_average(experiment: Experiment, model: nn.Module) -> AveragedModel | None:
    """Return the moving average of ``model``'s weights and batch-norm statistics, if the experiment wants it."""
    if not experiment.averaging:
        return None
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(experiment.averaging), use_buffers=True)
