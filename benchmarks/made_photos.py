"""Photos made from real ones, for benchmarks of many or large files: crops of other size and brightness."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

__all__ = ["make_photos"]

_NOISE = 6.0  # levels, as of a sensor; without it enlarged photos would compress too well
_QUALITY = 90


def make_photos(real: Path, home: Path, n_photos: int, size_px: tuple[int, int], seed: int = 0) -> int:
    """Write JPEGs of this width and height, as many of each class folder of ``real``; their bytes in all."""
    classes = sorted({path.parent.name for path in real.rglob("*.jpg")})
    files = {label: sorted(real.rglob(f"{label}/*.jpg")) for label in classes}
    jobs = []
    for label in classes:
        (home / label).mkdir(parents=True, exist_ok=True)
    for number in range(n_photos):
        label = classes[number % len(classes)]
        source = files[label][number // len(classes) % len(files[label])]
        jobs.append((source, home / label / f"{number:06}.jpg", size_px, seed + number))
    with ProcessPoolExecutor() as pool:
        return sum(pool.map(_make, jobs, chunksize=16))


def _make(job: tuple[Path, Path, tuple[int, int], int]) -> int:
    source, target, (width, height), seed = job
    rng = np.random.default_rng(seed)
    with Image.open(source) as image:
        photo = image.convert("RGB")
    share = rng.uniform(0.7, 1.0)
    side = (photo.width * share, photo.height * share)
    left, top = (rng.uniform(0, full - part) for full, part in zip(photo.size, side, strict=True))
    box = (left, top, left + side[0], top + side[1])
    pixels = np.asarray(photo.resize((width, height), Image.Resampling.BICUBIC, box=box), np.float32)
    pixels = pixels * np.float32(rng.uniform(0.8, 1.2))
    # one tile of noise many times over: drawing 12 million pixels of it takes longer than all else
    tile = rng.normal(0, _NOISE, (256, 256, 3)).astype(np.float32)
    rows, columns = -(-height // 256), -(-width // 256)
    pixels += np.tile(tile, (rows, columns, 1))[:height, :width]
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(target, quality=_QUALITY)
    return target.stat().st_size
