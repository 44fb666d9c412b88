"""What an experiment's choices mean in PyTorch: its images, loss, optimizer, schedule and average of weights."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import lr_scheduler
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.overrides import TorchFunctionMode

from helpers.data import Split, class_weights


def as_matrix(kernel: Tensor) -> Tensor:
    """Return a view of a kernel (out, in, h, w) or matrix (out, in) as (out, all the rest), in order of its memory."""
    if kernel.ndim == 4 and kernel.is_contiguous(memory_format=torch.channels_last):
        kernel = kernel.permute(0, 2, 3, 1)
    return kernel.view(len(kernel), -1)


class RoundedProducts(TorchFunctionMode):
    """Within it, convolutions, linear layers and products of matrices round to bfloat16, and compute in float32.

    Gradients are rounded too: the casts are part of the graph. In bfloat16 some processors take 20 times as long.
    """

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        in_half = func in (Tensor.matmul, torch.addmm) and args[0].dtype == torch.bfloat16
        if not in_half and func not in (F.conv2d, F.linear):
            return func(*args, **(kwargs or {}))
        rounded = [a.bfloat16().float() if isinstance(a, Tensor) else a for a in args]
        with torch.autocast("cpu", enabled=False):
            return func(*rounded, **(kwargs or {})).bfloat16()


def products(precision: str, device: torch.device) -> AbstractContextManager:
    """Return the context that makes bfloat16 products fast on ``device``, if ``precision`` and processor need one."""
    in_hardware = device.type != "cpu" or torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return nullcontext() if precision != "bf16" or in_hardware else RoundedProducts()


class Muon(torch.optim.Optimizer):
    """Muon (Jordan et al., 2024): steps of momentum, turned into the nearest matrix whose singular values are 1.

    A kernel (out, in, h, w) counts as the matrix (out, in * h * w), as PyTorch's Muon takes matrices alone. Biases, all
    norms and the last layer are AdamW's; Muon's steps are scaled to its length, so one learning rate serves both.
    ``OneCycleLR`` needs ``cycle_momentum=False``. Notebook 10 writes the step out.
    """

    def __init__(self, params: Iterable[nn.Parameter], lr: float = 1e-3, *, weight_decay: float = 0.0) -> None:
        params = [p for p in params if p.requires_grad]
        self.kernels = [p for p in params if p.ndim > 1][:-1]  # all but the last layer's
        # Parameters of their own that share the kernels' memory: PyTorch's Muon then updates the kernels.
        self.matrices = [nn.Parameter(as_matrix(p.data)) for p in self.kernels]
        rest = [p for p in params if not any(p is kernel for kernel in self.kernels)]
        self.parts: list[torch.optim.Optimizer] = [torch.optim.AdamW(rest, lr, weight_decay=weight_decay)]
        if self.matrices:
            muon = torch.optim.Muon(self.matrices, lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")
            self.parts.insert(0, muon)
        self.defaults = {"lr": lr}

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Return the groups of both, whose rates a schedule sets."""
        return [group for part in self.parts for group in part.param_groups]

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget all gradients."""
        for p in self.kernels:
            p.grad = None
        for part in self.parts:
            part.zero_grad(set_to_none)

    def step(self, closure: Callable | None = None) -> None:
        """Take one step of both from the gradients of the parameters."""
        for kernel, matrix in zip(self.kernels, self.matrices, strict=True):
            # The gradient in the kernel's own layout, so that both are the same columns in the same order.
            matrix.grad = as_matrix(torch.empty_like(kernel).copy_(kernel.grad))
        with products("bf16", self.kernels[0].device) if self.kernels else nullcontext():
            for part in self.parts:
                part.step()

    def state_dict(self) -> dict[str, Any]:
        """Return the states of both."""
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to such states."""
        for part, saved in zip(self.parts, state["parts"], strict=True):
            part.load_state_dict(saved)


LOSSES = {"CrossEntropyLoss": nn.CrossEntropyLoss, "KLDivLoss": nn.KLDivLoss}
OPTIMIZERS = {name: getattr(torch.optim, name) for name in ("Adam", "AdamW", "SGD", "RMSprop", "Adagrad")}
OPTIMIZERS["Muon"] = Muon
SCHEDULES = {name: getattr(lr_scheduler, name) for name in ("StepLR", "LinearLR", "CosineAnnealingLR", "OneCycleLR")}


def normalise(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Return uint8 ``images`` (N, 3, H, W) as floats of mean 0 and deviation 1 per channel, channels last."""
    scaled = images.to(memory_format=torch.channels_last).float()
    return scaled.mul_((1 / (255 * std)).view(1, 3, 1, 1)).sub_((mean / std).view(1, 3, 1, 1))


def mixture(images: Tensor, labels: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Return each image times ``share`` plus another of its batch times the rest, and the other's label (mixup).

    The partner is the image at the opposite place of the batch, whose order is random already. Images (N, C, H, W) come
    as uint8 and leave as floats on the same scale. The loss is mixed like the images (Zhang et al., 2018).
    """
    pictures = images.float()
    return pictures.mul(share).add_(pictures.flip(0), alpha=1 - share), labels.flip(0)


def criterion(experiment: Any, classes: int, learned: Split) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the experiment's loss as a function of logits (N, K) and class numbers (N,).

    Class weights are those of ``learned``, the split that is learned from; torch divides by the weights' sum.
    """
    divergence, options = experiment.loss == "KLDivLoss", dict(experiment.loss_options)
    if divergence:
        options.setdefault("reduction", "batchmean")  # the mean over images: what the divergence means
    if experiment.class_weights:
        options["weight"] = torch.tensor(class_weights(learned.labels.cpu().numpy()))
    # Figures are worked out on the CPU, wherever the training is.
    losses = {kind: LOSSES[experiment.loss](**options).to(kind) for kind in {"cpu", learned.labels.device.type}}

    def compute(logits: Tensor, labels: Tensor) -> Tensor:
        loss = losses[logits.device.type]
        if divergence:
            return loss(logits.log_softmax(1), F.one_hot(labels, classes).to(logits.dtype))
        return loss(logits, labels)

    return compute


def optimizer(experiment: Any, model: nn.Module) -> torch.optim.Optimizer:
    """Return the experiment's optimizer of ``model``'s parameters."""
    options = dict(experiment.optimizer_options)
    if experiment.optimizer in ("Adam", "AdamW", "SGD", "Adagrad"):
        options.setdefault("fused", True)  # one kernel for all parameters: the same update, fewer passes
    return OPTIMIZERS[experiment.optimizer](model.parameters(), lr=experiment.lr, **options)


def schedule(experiment: Any, optimizer: torch.optim.Optimizer, steps: int) -> Any | None:
    """Return the schedule of the learning rate, for epochs of so many steps, or None for a constant one."""
    if experiment.schedule == "constant":
        return None
    options = dict(experiment.schedule_options)
    if experiment.schedule == "OneCycleLR":
        options |= {"max_lr": experiment.lr, "total_steps": steps * experiment.epochs}
    elif experiment.schedule == "CosineAnnealingLR":
        options.setdefault("T_max", experiment.epochs)
    return SCHEDULES[experiment.schedule](optimizer, **options)


def moving_average(experiment: Any, model: nn.Module) -> AveragedModel | None:
    """Return the moving average of ``model``'s weights and batch-norm statistics, if the experiment wants it."""
    averaged = get_ema_multi_avg_fn(experiment.averaging)
    return AveragedModel(model, multi_avg_fn=averaged, use_buffers=True) if experiment.averaging else None
