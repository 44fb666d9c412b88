"""bfloat16 on any processor: where a CPU has no instructions for it, the same rounding, computed in float32.

PyTorch's bfloat16 convolutions fall back to a reference implementation there, ten times slower than float32.
Products of bfloat16 numbers are exact in float32, so rounding what goes in and what comes out gives the same results
up to the order in which float32 adds.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode


class RoundedProducts(TorchFunctionMode):
    """Within it, convolutions and linear layers round to bfloat16 as autocast has them do, and compute in float32.

    The casts are part of the graph, so gradients are rounded where autocast rounds them.
    """

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        """Return what ``func`` returns, rounded if it is a convolution or a linear layer."""
        if func not in (F.conv2d, F.linear):
            return func(*args, **(kwargs or {}))
        rounded = [a.bfloat16().float() if isinstance(a, Tensor) else a for a in args]
        with torch.autocast("cpu", enabled=False):
            return func(*rounded, **(kwargs or {})).bfloat16()


def products(precision: str, device: torch.device) -> AbstractContextManager:
    """Return the context that makes bfloat16 products fast on ``device``, if ``precision`` and processor need one."""
    in_hardware = device.type != "cpu" or torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return nullcontext() if precision != "bf16" or in_hardware else RoundedProducts()
