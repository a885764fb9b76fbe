"""Images drawn from random numbers, for tests that need photos of nothing."""

from __future__ import annotations

import numpy as np
from PIL import Image


def fields(n_images: int, side_px: int = 160, seed: int = 0) -> np.ndarray:
    """Smooth random colour fields with detail: photos of nothing."""
    rng = np.random.default_rng(seed)
    total = np.zeros((n_images, side_px, side_px, 3))
    for cells in (4, 8, 16, 32):
        grid = np.linspace(0, cells, side_px)
        weights = (1 - abs(grid[:, None] - np.arange(cells + 1))).clip(0)
        noise = np.moveaxis(rng.normal(size=(n_images, cells + 1, cells + 1, 3)), 3, 1)
        total += np.moveaxis(weights @ noise @ weights.T, 1, 3) / np.sqrt(cells)
    return (128 + 45 * total).clip(0, 255).astype(np.uint8)


def moved(image: np.ndarray, share: float) -> np.ndarray:
    """Cut a share of the side off at the top and left, and stretch the rest back."""
    side = len(image)
    cut = round(side * share)
    places = np.linspace(cut, side - 1, side).round().astype(int)
    return image[np.ix_(places, places)]


def photo(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Smooth colours with noise on them, (height, width, 3)."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (max(2, height // 6), max(2, width // 6), 3)).astype(np.uint8)
    fine = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)).astype(int)
    return (fine + rng.integers(-12, 13, fine.shape)).clip(0, 255).astype(np.uint8)
