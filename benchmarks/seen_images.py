"""Learned images: are copies recognised, and is any new image taken for one.

Photos (hymenoptera), drawings (Omniglot) and digits (MNIST, USPS), each changed as people change images; and
sets whose images resemble each other for honest reasons: one frame, one vignette, tiles of one photo, one
printed form. Every new image that is called learned is a false alarm: `evaluate` would leave it out.

    python benchmarks/seen_images.py --data DATA
"""

from __future__ import annotations

import argparse
import io
import json
import os
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from machine import facts
from PIL import Image, ImageDraw, ImageEnhance

Change = Callable[[Image.Image], Image.Image]


def coded(image: Image.Image, kind: str, quality: int = 90) -> Image.Image:
    """Saved and opened again."""
    file = io.BytesIO()
    image.save(file, kind, quality=quality)
    return Image.open(file)


def cut(image: Image.Image, share: float) -> Image.Image:
    """A share of either side cut off at the left and at the top."""
    width, height = image.size
    return image.crop((round(share * width), round(share * height), width, height))


CHANGES: dict[str, Change] = {
    "PNG": lambda image: coded(image, "PNG"),
    "JPEG 95": lambda image: coded(image, "JPEG", 95),
    "JPEG 75": lambda image: coded(image, "JPEG", 75),
    "JPEG 50": lambda image: coded(image, "JPEG", 50),
    "JPEG 30": lambda image: coded(image, "JPEG", 30),
    "WebP 60": lambda image: coded(image, "WEBP", 60),
    "half size": lambda image: coded(image.resize((image.width // 2, image.height // 2)), "JPEG"),
    "double size": lambda image: image.resize((image.width * 2, image.height * 2)),
    "1.2 x brighter": lambda image: coded(ImageEnhance.Brightness(image).enhance(1.2), "JPEG"),
    "grey": lambda image: coded(image.convert("L"), "JPEG"),
    "3 % cropped": lambda image: coded(cut(image, 0.03), "JPEG"),
}


def letterboxed(image: Image.Image) -> Image.Image:
    """On a black square."""
    page = Image.new("RGB", (300, 300), "black")
    page.paste(image.resize((300, 225)), (0, 37))
    return page


def vignetted(image: Image.Image) -> Image.Image:
    """As through a microscope."""
    down, across = np.mgrid[-1:1:200j, -1:1:200j]
    inside = (down**2 + across**2 < 0.9)[..., None]
    return Image.fromarray((np.asarray(image.resize((200, 200))) * inside).astype(np.uint8))


def tiles(images: Sequence[Image.Image]) -> list[Image.Image]:
    """Nine tiles of each of some photos, which do not overlap."""
    return [
        one.crop((across * one.width // 3, down * one.height // 3, (across + 1) * one.width // 3,
                  (down + 1) * one.height // 3))
        for one in images[:150] for across in range(3) for down in range(3)
    ]  # fmt: skip


def form(seed: int) -> Image.Image:
    """A printed form, filled in with other numbers each time."""
    page, rng = Image.new("L", (600, 800), 255), np.random.default_rng(seed)
    draw = ImageDraw.Draw(page)
    draw.rectangle((40, 20, 560, 760), outline=0, width=3)
    for y in range(60, 760, 40):
        draw.line((40, y, 560, y), fill=0, width=2)
        draw.text((60, y + 10), " ".join(map(str, rng.integers(0, 99_999, 6))), fill=0)
    return page


def glanced(images: Sequence[Image.Image]) -> tuple[np.ndarray, np.ndarray]:
    """Thumbnails, and which images are tiny."""
    from headstart.data.checks.duplicates import THUMB_PX
    from headstart.data.images.decode import squished

    plain = [np.asarray(one if one.mode == "L" else one.convert("RGB")) for one in images]
    thumbs = np.stack([squished(one[..., None] if one.ndim == 2 else one, THUMB_PX) for one in plain])
    return thumbs, np.array([max(one.size) <= 64 for one in images])


def judged(
    name: str, known: Sequence[Image.Image], new: Sequence[Image.Image], changes: Sequence[str]
) -> dict[str, Any]:
    """False alarms among new images, and how many of some known ones are recognised after each change."""
    from headstart.data.checks.appearance import Matcher, describe

    thumbs, tiny = glanced(known)
    looks = describe(thumbs, tiny)
    matcher, vectors = Matcher(looks), unit(looks.values)
    asked, small = glanced(new)
    alarms = int((matcher.copies(asked, small) >= 0).sum())
    others = unit(describe(asked, small).values)
    nearest = max(float((others[i : i + 500] @ vectors.T).max()) for i in range(0, len(others), 500))
    told = {"name": name, "known": len(known), "new": len(new), "false_alarms": alarms}
    print(
        f"\n{name}: {alarms} of {len(new):,} new images taken for one of {len(known):,} known; "
        f"the most similar reaches {nearest:.4f}"
    )
    some = np.linspace(0, len(known) - 1, min(400, len(known))).round().astype(int)
    for change in changes:
        copied, small = glanced([CHANGES[change](known[place]) for place in some])
        found = matcher.copies(copied, small)
        least = float((unit(describe(copied, small).values) * vectors[some]).sum(axis=1).min())
        right, wrong = int((found == some).sum()), int(((found >= 0) & (found != some)).sum())
        told[change] = {"found": right, "wrong": wrong, "of": len(some), "least": round(least, 4)}
        print(
            f"  {change:16} {right:4} of {len(some)} recognised, {wrong} as another; "
            f"least similarity {least:.4f}"
        )
    return {**told, "nearest": round(nearest, 4)}


def unit(values: np.ndarray) -> np.ndarray:
    """Rows of length 1."""
    rows = values.astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True).clip(1e-9)


def halves(images: Sequence[Image.Image]) -> tuple[list[Image.Image], list[Image.Image]]:
    """Two thirds known, one third new, at random."""
    order = np.random.default_rng(0).permutation(len(images))
    cut_at = 2 * len(images) // 3
    return [images[i] for i in order[:cut_at]], [images[i] for i in order[cut_at:]]


def drawings(folder: Path) -> Iterator[Image.Image]:
    """Omniglot's drawings, each once."""
    seen = set()
    for part in sorted(folder.glob("*.zip")):
        with zipfile.ZipFile(part) as archive:
            for name in sorted(archive.namelist()):
                data = archive.read(name) if name.endswith(".png") else b""
                if data and data not in seen:
                    seen.add(data)
                    yield Image.open(io.BytesIO(data)).convert("L")


def main() -> None:
    """Judge every set, print."""
    given = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    given.add_argument("--data", required=True, help="folder of the data sets")
    data = Path(given.parse_args().data)
    os.environ["HEADSTART_DATA"] = str(data)

    from headstart.data.readers.load import load

    about = facts("headstart", "numpy", "pillow")
    print(about)
    folder = data / "hymenoptera"
    photos = [
        [Image.open(path).convert("RGB") for path in sorted((folder / part).rglob("*.jpg"))]
        for part in ("train", "val")
    ]
    everything = [*photos[0], *photos[1]]
    plain = [name for name in CHANGES if name not in ("grey", "3 % cropped")]
    done = [judged("photos", *photos, [*CHANGES])]
    done.append(judged("drawings", *halves(list(drawings(data / "omniglot-py"))), [*plain, "3 % cropped"]))
    for name in ("mnist", "usps"):
        digits = load(name)
        train, test = (digits.split(part).images.pixels[..., 0] for part in ("train", "test"))
        known = [Image.fromarray(one) for one in train[-57_000:]]
        done.append(judged(name, known, [Image.fromarray(one) for one in test], plain))
    alike = {
        "letterboxed photos": [letterboxed(one) for one in everything],
        "vignetted photos": [vignetted(one) for one in everything],
        "tiles of photos": tiles(everything),
        "filled-in forms": [form(seed) for seed in range(300)],
    }
    done += [judged(name, *halves(images), ["JPEG 50"]) for name, images in alike.items()]
    print(json.dumps({**about, "judged": done}))


if __name__ == "__main__":
    main()
