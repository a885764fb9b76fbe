"""What each operation of an augmentation does to pixels.

In: float32 tensors (n, channels, height, width) in [0, 1], uniform draws, strengths. Out: such tensors. An
image's result must not depend, to the last bit, on the others in its batch. Torch and kornia are handed in,
as both are optional. Called by augment.
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
    """One value per image, to be combined with (n, c, h, w).

    Parameters
    ----------
    torch : module
        Torch.
    values : ndarray of shape (n,), float
        One for each image.

    Returns
    -------
    Tensor of shape (n, 1, 1, 1), float32
    """
    return torch.from_numpy(values.astype(np.float32))[:, None, None, None]


def warped(values: Any, draws: Draws, strengths: Mapping[str, float], torch: Any) -> Any:
    """Move every pixel once, by sums and products of single values: the same in any batch.

    Parameters
    ----------
    values : Tensor of shape (n, channels, height, width), float32
        Images, in [0, 1].
    draws : dict of str to ndarray
        Uniform in [0, 1), (n,) each, and ``knots`` (n, 2, 5, 5).
    strengths : mapping of str to float
        Of every operation, as in ``augment.OPERATIONS``.
    torch : module
        Torch.

    Returns
    -------
    Tensor of shape (n, channels, height, width), float32
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
    """The matrix (size, 5) that draws a cubic curve through the knots: a tenth of torch's own time."""
    eye = torch.eye(KNOTS)[:, None, :, None].expand(-1, 1, -1, 2)
    drawn = torch.nn.functional.interpolate(eye, (size, 2), mode="bicubic", align_corners=True)
    return drawn[:, 0, :, 0].T.contiguous()


def _inverse(draws: Draws, strengths: Mapping[str, float]) -> list[list[NDArray[np.float64]]]:
    """Give the 2 x 2 matrices that undo mirror, zoom, shear and rotation, in this order; entries (n,)."""
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
    """Grow or shrink what is bright, a pixel at a time; of a part of a pixel, that part of the change.

    Parameters
    ----------
    values : Tensor of shape (n, channels, height, width), float32
        Images, in [0, 1].
    widths : ndarray of shape (n,), float
        How far edges move out, as shares of the shorter side; inwards below 0.
    most : float
        The largest there may be; with 0 nothing happens.
    torch : module
        Torch.

    Returns
    -------
    Tensor of shape (n, channels, height, width), float32
    """
    if not most:
        return values
    side = min(values.shape[2:])
    left, sign = column(torch, np.abs(widths) * side), column(torch, np.where(widths > 0, 1.0, -1.0))
    values = sign * values  # to shrink what is bright is to grow what is dark
    for _ in range(ceil(most * side)):
        values = values + left.clamp(0, 1) * (_brightest(values, torch) - values)
        left = left - 1
    return sign * values


def _brightest(values: Any, torch: Any) -> Any:
    """The brightest of each pixel and the four beside it, by shifts: pools take five times as long."""
    most = values.clone()
    for dim, size in ((2, values.shape[2] - 1), (3, values.shape[3] - 1)):
        for kept, beside in ((1, 0), (0, 1)):
            part = most.narrow(dim, kept, size)
            torch.maximum(part, values.narrow(dim, beside, size), out=part)
    return most


def blurred(values: Any, sigmas: NDArray[np.float64], most: float, torch: Any, kornia: Any) -> Any:
    """Blur image by image: a convolution of one image differs in the last bit from one of many.

    Parameters
    ----------
    values : Tensor of shape (n, channels, height, width), float32
        Images, in [0, 1].
    sigmas : ndarray of shape (n,), float
        Shares of the shorter side.
    most : float
        The largest there may be; with 0 nothing happens.
    torch, kornia : module
        Torch and kornia.

    Returns
    -------
    Tensor of shape (n, channels, height, width), float32
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
