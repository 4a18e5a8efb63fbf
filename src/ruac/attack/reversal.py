"""Gradient reversal (Ganin & Lempitsky 2015): attacker and defender share one loss, one optimiser, one backward pass."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class _Reversal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: float) -> Tensor:
        ctx.scale = scale
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return -ctx.scale * gradients[0], None


def reverse_gradient(x: Tensor, scale: float = 1.0) -> Tensor:
    """x itself; its gradient comes back multiplied by -scale, so that what lies before climbs the loss that all else descends."""
    result = _Reversal.apply(x, scale)
    assert isinstance(result, Tensor)
    return result
