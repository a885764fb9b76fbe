"""The operations of an augmentation, on float32 tensors (n, channels, height, width) in [0, 1].

The result for an image must not depend, to the last bit, on the others in its batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["KNOTS", "Draws", "blurred", "column", "restroked", "warped"]

KNOTS = 5  # each way; of 4,000 such fields none folds at strength 0.06, 10 do at 0.08 (2026-11-21)

Draws = dict[str, NDArray[np.float64]]


def column(torch: Any, values: NDArray[np.float64]) -> Any:
    """One value per image, (n,), as a float32 tensor (n, 1, 1, 1)."""
    return torch.from_numpy(values.astype(np.float32))[:, None, None, None]


def warped(values: Any, draws: Draws, strengths: Mapping[str, float], torch: Any) -> Any:
    """Move every pixel once, by sums and products of single values: the same in any batch.

    ``draws`` are uniform in [0, 1), (n,) each, and ``knots`` (n, 2, 5, 5).
    """
    height, width = values.shape[2:]
    move_x, move_y = (strengths["shift"] * (2 * draws[name] - 1) for name in ("shift_x", "shift_y"))
    x = torch.arange(width) - (width - 1) / 2 - column(torch, move_x * width)[:, 0]  # (n, 1, w)
    y = torch.arange(height)[:, None] - (height - 1) / 2 - column(torch, move_y * height)[:, 0]  # (n, h, 1)
    (xx, xy), (yx, yy) = ((column(torch, one)[:, 0] for one in row) for row in _inverse(draws, strengths))
    map_x, map_y = xx * x + xy * y + (width - 1) / 2, yx * x + yy * y + (height - 1) / 2  # (n, h, w)
    if strengths["elastic"]:
        knots = torch.from_numpy((2 * draws["knots"] - 1).astype(np.float32)).mul_(strengths["elastic"])
        down, across = _cubic(height, torch), _cubic(width, torch)
        rows = sum(down[:, k, None] * knots[..., k : k + 1, :] for k in range(KNOTS))  # (n, 2, h, 5)
        field = sum(rows[..., k : k + 1] * across[:, k] for k in range(KNOTS))  # (n, 2, h, w)
        map_x, map_y = map_x + width * field[:, 0], map_y + height * field[:, 1]
    places = torch.stack((map_x * (2 / max(1, width - 1)) - 1, map_y * (2 / max(1, height - 1)) - 1), dim=-1)
    return torch.nn.functional.grid_sample(values, places, padding_mode="border", align_corners=True)


@cache
def _cubic(size: int, torch: Any) -> Any:
    """The matrix (size, 5) of a cubic curve through the knots; ten times as fast as torch's interpolation."""
    eye = torch.eye(KNOTS)[:, None, :, None].expand(-1, 1, -1, 2)
    drawn = torch.nn.functional.interpolate(eye, (size, 2), mode="bicubic", align_corners=True)
    return drawn[:, 0, :, 0].T.contiguous()


def _inverse(draws: Draws, strengths: Mapping[str, float]) -> list[list[NDArray[np.float64]]]:
    """The 2 x 2 matrices that undo mirroring, zoom, shear and rotation, in this order; entries (n,)."""
    angle = np.radians(strengths["rotation"] * (2 * draws["rotation"] - 1))
    slope = strengths["shear"] * (2 * draws["shear"] - 1)
    zoom = 1 + strengths["zoom"] * (2 * draws["zoom"] - 1)
    scale_x = np.where(draws["flip"] < strengths["flip"], -1, 1) / zoom
    scale_y = np.where(draws["flip_vertical"] < strengths["flip_vertical"], -1, 1) / zoom
    cos, sin = np.cos(angle), np.sin(angle)
    return [
        [scale_x * (cos + slope * sin), scale_x * (sin - slope * cos)],
        [scale_y * -sin, scale_y * cos],
    ]


def restroked(values: Any, widths: NDArray[np.float64], most: float, torch: Any) -> Any:
    """Grow bright strokes by ``widths`` (n,), shares of the shorter side, at most ``most``; shrink where negative.

    They grow by one pixel at a time; for a fraction of a pixel, by that fraction of the change.
    """
    if not most:
        return values
    side = min(values.shape[2:])
    left, sign = column(torch, np.abs(widths) * side), column(torch, np.where(widths > 0, 1.0, -1.0))
    values = sign * values  # shrinking bright strokes is growing dark ones
    for _ in range(ceil(most * side)):
        values = values + left.clamp(0, 1) * (_brightest(values, torch) - values)
        left = left - 1
    return sign * values


def _brightest(values: Any, torch: Any) -> Any:
    """The maximum of each pixel and its four neighbours, by shifts: pooling takes five times as long."""
    most = values.clone()
    for dim, size in ((2, values.shape[2] - 1), (3, values.shape[3] - 1)):
        for kept, other in ((1, 0), (0, 1)):
            part = most.narrow(dim, kept, size)
            torch.maximum(part, values.narrow(dim, other, size), out=part)
    return most


def blurred(values: Any, sigmas: NDArray[np.float64], most: float, torch: Any, kornia: Any) -> Any:
    """Blur by ``sigmas`` (n,), shares of the shorter side, at most ``most``.

    Image by image: a convolution of one image differs in the last bit from that of a batch.
    """
    if not most:
        return values
    side = min(values.shape[2:])
    size = 2 * ceil(3 * most * side) + 1
    widths = torch.from_numpy(sigmas.astype(np.float32)).mul_(side).clamp_(min=1e-3)  # 0 would divide by 0
    return torch.cat(
        [
            kornia.filters.gaussian_blur2d(one[None], size, width.expand(1, 2), "replicate")
            for one, width in zip(values, widths, strict=True)
        ]
    )
