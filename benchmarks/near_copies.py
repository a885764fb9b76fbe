"""Near copies: which altered copies of an image `inspect` finds, and which distinct images it takes for copies.

Photos (hymenoptera), letters by hand (greek), drawings (Omniglot) and digits (MNIST), each changed as people,
messengers and screenshots change images. A pair of two distinct images is a false pair.

    python benchmarks/near_copies.py [--copies 60] [--sets photos,letters,drawings,digits]
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from machine import facts
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont, ImageOps

from headstart.data.checks.doctor import examine
from headstart.data.dataset import Dataset
from headstart.data.readers.load import load
from headstart.data.stores import FileImages

Change = Callable[[Image.Image, np.random.Generator], Image.Image]
N_DRAWINGS = N_DIGITS = 3_000
DATA = Path(os.environ["HEADSTART_DATA"])


def scaled(image: Image.Image, factor: float) -> Image.Image:
    size = [max(1, round(factor * side)) for side in image.size]
    return image.resize((size[0], size[1]), Image.Resampling.LANCZOS)


def cropped(image: Image.Image, rng: np.random.Generator, share: float) -> Image.Image:
    """A share of each dimension cut off, at random sides."""
    (left, top), (width, height) = rng.random(2), image.size
    edges = (left * share * width, top * share * height)
    ends = (width - (1 - left) * share * width, height - (1 - top) * share * height)
    return image.crop((round(edges[0]), round(edges[1]), round(ends[0]), round(ends[1])))


def marked(image: Image.Image, text: str, at: tuple[float, float], alpha: int, part: int) -> Image.Image:
    layer = Image.new("RGBA", image.size, (0, 0, 0, 0))
    font = ImageFont.load_default(max(9, image.width // part))
    where = (at[0] * image.width, at[1] * image.height)
    ImageDraw.Draw(layer).text(where, text, font=font, fill=(255, 255, 255, alpha))
    return Image.alpha_composite(image.convert("RGBA"), layer).convert("RGB")


def times(image: Image.Image, *factors: float) -> Image.Image:
    return Image.fromarray((np.asarray(image) * np.array(factors)).clip(0, 255).astype(np.uint8))


def turned(image: Image.Image, degrees: float) -> Image.Image:
    """Rotated, and cropped to where there are pixels."""
    loss = abs(np.sin(np.radians(degrees))) / 2
    right, down = int(image.height * loss) + 1, int(image.width * loss) + 1
    whole = image.rotate(degrees, Image.Resampling.BICUBIC)
    return whole.crop((right, down, image.width - right, image.height - down))


def hue(image: Image.Image, shift: int) -> Image.Image:
    hues, *others = image.convert("HSV").split()
    return Image.merge("HSV", (hues.point(lambda value: (value + shift) % 256), *others)).convert("RGB")


def noisy(image: Image.Image, rng: np.random.Generator, sigma: float) -> Image.Image:
    pixels = np.asarray(image) + rng.normal(0, sigma, (image.height, image.width, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def on_canvas(image: Image.Image, margins: Sequence[float], colour: object, text: str = "") -> Image.Image:
    """On a larger canvas: margins at the left, right, top and bottom as shares of the image."""
    (left, right, top, bottom), (width, height) = margins, image.size
    size = (round(width * (1 + left + right)), round(height * (1 + top + bottom)))
    canvas = Image.new("RGB", size, colour)  # type: ignore[arg-type]
    canvas.paste(image, (round(left * width), round(top * height)))
    where = (6, 6) if top else (6, height + 4)
    ink = "white" if top else "black"
    ImageDraw.Draw(canvas).text(where, text, font=ImageFont.load_default(max(8, height // 16)), fill=ink)
    return canvas


def paper(image: Image.Image) -> tuple[int, ...]:
    pixels = np.asarray(image)
    ring = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    return tuple(int(value) for value in np.median(ring, axis=0))


def turned_on_paper(image: Image.Image, degrees: float) -> Image.Image:
    return image.rotate(degrees, Image.Resampling.BICUBIC, fillcolor=paper(image))


def square(image: Image.Image, colour: str) -> Image.Image:
    return ImageOps.pad(image, (max(image.size),) * 2, color=colour)


# each with the quality of JPEG in which it is saved; None for PNG
PHOTO: dict[str, tuple[Change, int | None]] = {
    "JPEG 10": (lambda image, _: image, 10),
    "JPEG 30": (lambda image, _: image, 30),
    "half size": (lambda image, _: scaled(image, 0.5), 88),
    "quarter size": (lambda image, _: scaled(image, 0.25), 88),
    "half size, JPEG 55 (messenger)": (lambda image, _: scaled(image, 0.5), 55),
    "3 % cropped": (lambda image, rng: cropped(image, rng, 0.03), 88),
    "5 % cropped": (lambda image, rng: cropped(image, rng, 0.05), 88),
    "8 % cropped": (lambda image, rng: cropped(image, rng, 0.08), 88),
    "12 % cropped": (lambda image, rng: cropped(image, rng, 0.12), 88),
    "messenger, 5 % cropped": (lambda image, rng: scaled(cropped(image, rng, 0.05), 0.5), 55),
    "mirrored, 5 % cropped": (lambda image, rng: ImageOps.mirror(cropped(image, rng, 0.05)), 88),
    "letterboxed, black": (lambda image, _: square(image, "black"), 88),
    "letterboxed, white": (lambda image, _: square(image, "white"), 88),
    "white frame of 4 %": (lambda image, _: ImageOps.expand(image, min(image.size) // 25, "white"), 88),
    "black frame of 8 %": (lambda image, _: ImageOps.expand(image, min(image.size) // 12, "black"), 88),
    "bar with text": (lambda image, _: on_canvas(image, (0, 0, 0, 0.12), "white", "when you see it"), 88),
    "screenshot": (
        lambda image, _: on_canvas(image, (0.1, 0.1, 0.2, 0.15), (32, 33, 36), "< Back  Share"),
        88,
    ),
    "watermark in the middle": (lambda image, _: marked(image, "SAMPLE 123", (0.05, 0.42), 130, 6), 88),
    "watermark in the corner": (lambda image, _: marked(image, "(c) photo", (0.6, 0.88), 255, 12), 88),
    "grey": (lambda image, _: image.convert("L").convert("RGB"), 88),
    "grey, 5 % cropped": (lambda image, rng: cropped(image, rng, 0.05).convert("L").convert("RGB"), 88),
    "warmer": (lambda image, _: times(image, 1.15, 1, 0.85), 88),
    "much warmer": (lambda image, _: times(image, 1.3, 1, 0.7), 88),
    "hue + 14 degrees": (lambda image, _: hue(image, 10), 88),
    "hue + 56 degrees": (lambda image, _: hue(image, 40), 88),
    "paler": (lambda image, _: ImageEnhance.Color(image).enhance(0.4), 88),
    "0.6 x as bright": (lambda image, _: times(image, 0.6, 0.6, 0.6), 88),
    "1.4 x as bright": (lambda image, _: times(image, 1.4, 1.4, 1.4), 88),
    "1.5 x the contrast": (lambda image, _: ImageEnhance.Contrast(image).enhance(1.5), 88),
    "rotated by 2 degrees": (lambda image, rng: turned(image, float(rng.choice([-2, 2]))), 88),
    "rotated by 5 degrees": (lambda image, rng: turned(image, float(rng.choice([-5, 5]))), 88),
    "blurred": (lambda image, _: image.filter(ImageFilter.GaussianBlur(max(image.size) / 250)), 88),
    "noise": (lambda image, rng: noisy(image, rng, 12), 88),
}
LETTER: dict[str, tuple[Change, int | None]] = {
    "JPEG 30": (lambda image, _: image, 30),
    "JPEG 60": (lambda image, _: image, 60),
    "half size": (lambda image, _: scaled(image, 0.5), None),
    "double size": (lambda image, _: scaled(image, 2), None),
    "half size, JPEG 55 (messenger)": (lambda image, _: scaled(image, 0.5), 55),
    "margins of 5 - 15 %": (
        lambda image, rng: on_canvas(image, rng.uniform(0.05, 0.15, 4), paper(image)),
        None,
    ),
    "margins of 10 - 40 %": (
        lambda image, rng: on_canvas(image, rng.uniform(0.1, 0.4, 4), paper(image)),
        None,
    ),
    "margins, JPEG 60": (lambda image, rng: on_canvas(image, rng.uniform(0.1, 0.4, 4), paper(image)), 60),
    "3 % cropped": (lambda image, rng: cropped(image, rng, 0.03), None),
    "8 % cropped": (lambda image, rng: cropped(image, rng, 0.08), None),
    "black frame of 4 %": (
        lambda image, _: ImageOps.expand(image, max(1, min(image.size) // 25), "black"),
        None,
    ),
    "warmer": (lambda image, _: times(image, 1, 0.95, 0.8), None),
    "0.7 x as bright": (lambda image, _: times(image, 0.7, 0.7, 0.7), None),
    "1.4 x the contrast": (lambda image, _: ImageEnhance.Contrast(image).enhance(1.4), None),
    "rotated by 2 degrees": (
        lambda image, rng: image.rotate(float(rng.choice([-2, 2])), fillcolor=paper(image)),
        None,
    ),
    "noise": (lambda image, rng: noisy(image, rng, 8), None),
    "watermark in the corner": (lambda image, _: marked(image, "(c) photo", (0.6, 0.88), 255, 12), None),
}


def originals(name: str, home: Path) -> list[Path]:
    """The files of a set, without exact copies."""
    if name == "photos":
        stores = [load(DATA / "hymenoptera").images]
    elif name == "letters":
        stores = [load("greek-photos").images, load(DATA / "greek/other_letters").images]
    else:
        whole = load("omniglot-small" if name == "drawings" else "mnist").images
        n_images = N_DRAWINGS if name == "drawings" else N_DIGITS
        places = np.linspace(0, len(whole) - 1, n_images).round().astype(int)
        paths = [home / f"{place}.png" for place in places]
        for place, path in zip(places.tolist(), paths, strict=True):
            pixels = whole.image(place)
            Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(path)
        stores = [FileImages(paths)]
    by_digest = {
        digest: path for one in stores for digest, path in zip(one.digests, one.paths or (), strict=True)
    }
    return list(by_digest.values())


def opened(path: Path) -> Image.Image:
    pixels = FileImages([path]).image(0)
    return Image.fromarray(pixels.repeat(4 - pixels.shape[2], axis=2)[..., :3])


def roots(n_images: int, pairs: Sequence[tuple[int, int]]) -> list[int]:
    """The group of each image, if the images of each pair are one."""
    parent = list(range(n_images))

    def root(place: int) -> int:
        while parent[place] != place:
            place = parent[place]
        return place

    for first, second in pairs:
        parent[root(second)] = root(first)
    return [root(place) for place in range(n_images)]


def found(paths: Sequence[Path]) -> list[tuple[int, int]]:
    labels = np.array(["image"] * len(paths))
    return [pair.places for pair in examine(Dataset("copies", FileImages(paths), labels, ("image",))).pairs]


def measured(name: str, n_copies: int) -> dict[str, list[int]]:
    """For each change: copies found, copies made, false pairs."""
    results = {}
    with TemporaryDirectory() as folder:
        base = originals(name, Path(folder))
        alone = found(base)
        same = roots(len(base), alone)
        rng = np.random.default_rng(7)
        chosen = sorted(rng.choice(len(base), min(n_copies, len(base)), replace=False).tolist())
        print(f"{name}: {len(base)} images, {len(alone)} pairs among them", flush=True)
        for number, (change, (make, quality)) in enumerate((PHOTO if name == "photos" else LETTER).items()):
            copies = []
            for place in chosen:
                path = Path(folder) / f"{number}-{place}.{'png' if quality is None else 'jpg'}"
                make(opened(base[place]), rng).save(path, **({} if quality is None else {"quality": quality}))
                copies.append(path)
            pairs = found([*base, *copies])
            of = [*range(len(base)), *chosen]
            group = roots(len(of), pairs)
            n_found = sum(group[len(base) + k] == group[place] for k, place in enumerate(chosen))
            n_false = sum(same[of[first]] != same[of[second]] for first, second in pairs)
            results[change] = [n_found, len(copies), n_false]
            print(f"  {change:32} {n_found:3} of {len(copies)}, {n_false} false pairs", flush=True)
    n_found, n_made, n_false = (sum(column) for column in zip(*results.values(), strict=True))
    print(f"  {'all':32} {n_found} of {n_made}, {n_false} false pairs", flush=True)
    return results


def main() -> None:
    """Measure the sets that are asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--copies", type=int, default=60, help="copies of each kind")
    parser.add_argument("--sets", default="photos,letters,drawings,digits")
    parser.add_argument("--json", type=Path, default=None, help="also write the counts here")
    asked = parser.parse_args()
    print(json.dumps(facts("headstart", "numpy", "pillow")))
    results = {name: measured(name, asked.copies) for name in asked.sets.split(",")}
    if asked.json is not None:
        asked.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
