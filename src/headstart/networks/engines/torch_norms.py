"""Frozen batch norms while a network learns: one product and one sum for each value, and as cheap a gradient.

In: a module some of whose batch norms are put to rest. Out: the same module, for as long as a step takes.
Owns a rule of torch's derivatives; imported by torch_training only.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["NORMS", "fixed_norms"]

NORMS = nn.modules.batchnorm._BatchNorm
"""What counts as a batch norm; timm's own are among them."""


@contextmanager
def fixed_norms(module: nn.Module) -> Iterator[None]:
    """Compute the norms in a module that neither follow the data nor learn as what they are: lines.

    Parameters
    ----------
    module : nn.Module
        Its norms' own ``forward`` comes back when the context ends.

    Notes
    -----
    Torch's backward pass through a resting norm costs as much as if it learnt. Without it a step of
    MobileNetV1 (16 x 224 x 224 px, 2 cores of a Xeon) takes 0.50 s instead of 0.67 (2026-11-28).
    """
    resting = [one for one in module.modules() if isinstance(one, NORMS) and _rests(one)]
    for one in resting:
        one.forward = partial(_line, one)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for one in resting:
            del one.forward


def _rests(norm: nn.Module) -> bool:
    """Whether it is a line, and one we know how to draw: torch's, or timm's with an activation in it."""
    known = type(norm).forward is nn.BatchNorm2d.forward or all(hasattr(norm, one) for one in ("drop", "act"))
    learns = any(one.requires_grad for one in norm.parameters(recurse=False))
    return known and not norm.training and not learns and norm.running_var is not None


def _line(norm: Any, values: Tensor) -> Tensor:
    if values.dtype != torch.float32:  # torch's own keeps more digits than bf16 would
        found: Tensor = type(norm).forward(norm, values)
        return found
    scale = torch.rsqrt(norm.running_var + norm.eps)
    scale = scale if norm.weight is None else scale * norm.weight
    shift = -norm.running_mean * scale
    shift = shift if norm.bias is None else shift + norm.bias
    shape = (1, -1) + (1,) * (values.dim() - 2)
    moved: Tensor = _Line.apply(values, scale.view(shape), shift.view(shape))
    return norm.act(norm.drop(moved)) if hasattr(norm, "act") else moved


class _Line(torch.autograd.Function):
    """values * scale + shift, where only the values want a gradient."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        ctx.save_for_backward(scale)
        return torch.addcmul(shift, values, scale)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (scale,) = ctx.saved_tensors
        return grad * scale, None, None
