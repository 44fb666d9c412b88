"""Muon for whole networks: PyTorch's, which takes matrices alone, for the kernels, and AdamW for the rest."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn


def as_matrix(kernel: Tensor) -> Tensor:
    """Return a view of a kernel (out, in, h, w) or matrix (out, in) as (out, all the rest), in order of its memory."""
    if kernel.ndim == 4 and kernel.is_contiguous(memory_format=torch.channels_last):
        kernel = kernel.permute(0, 2, 3, 1)
    return kernel.view(len(kernel), -1)


class Muon(torch.optim.Optimizer):
    """Muon (Jordan et al., 2024): steps of momentum, turned into the nearest matrix whose singular values are 1.

    A kernel (out, in, h, w) counts as the matrix (out, in * h * w). Biases, batch norms and the last layer, which are
    not such maps between hidden states, are AdamW's. Muon's steps are scaled to the length of AdamW's
    ("match_rms_adamw"), so one learning rate serves both. With ``OneCycleLR`` set ``cycle_momentum=False``.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float = 1e-3,
        *,
        momentum: float = 0.95,
        nesterov: bool = True,
        weight_decay: float = 0.0,
        ns_steps: int = 5,
    ) -> None:
        """Share the parameters out; the last one with two dimensions or more is the last layer's."""
        params = [p for p in params if p.requires_grad]
        kernels = [p for p in params if p.ndim > 1]
        self.kernels = kernels[:-1]
        # Parameters of their own that share the kernels' memory: PyTorch's Muon then updates the kernels.
        self.matrices = [nn.Parameter(as_matrix(p.data)) for p in self.kernels]
        kept = {id(p) for p in self.kernels}
        rest = [p for p in params if id(p) not in kept]
        chosen = {"momentum": momentum, "nesterov": nesterov, "weight_decay": weight_decay, "ns_steps": ns_steps}
        self.parts: list[torch.optim.Optimizer] = []
        if self.matrices:
            self.parts.append(torch.optim.Muon(self.matrices, lr, adjust_lr_fn="match_rms_adamw", **chosen))
        if rest:
            self.parts.append(torch.optim.AdamW(rest, lr, weight_decay=weight_decay))
        self.defaults = {"lr": lr}

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Return the groups of both, whose learning rates a schedule sets."""
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
            grad = None if kernel.grad is None else torch.empty_like(kernel).copy_(kernel.grad)
            matrix.grad = None if grad is None else as_matrix(grad)
        for part in self.parts:
            part.step()

    def state_dict(self) -> dict[str, Any]:
        """Return the states of both."""
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to such states."""
        for part, saved in zip(self.parts, state["parts"], strict=True):
            part.load_state_dict(saved)
