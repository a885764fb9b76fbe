"""200 photos of 12 million pixels, whole ``headstart transfer``: now, before, and torchvision's usual pipeline.

In turns, process by process, nothing cached. The peer reads the photos with ImageFolder, Resize, CenterCrop and a
DataLoader with 2 workers, runs the same network with the same weights in eager PyTorch once, and fits a logistic
regression. ``--before`` is a checkout of an older version. Alone on the machine:

    python benchmarks/scaled_decoding.py --data DATA --before CHECKOUT
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
from machine import facts, parser, run, spread, told
from made_photos import make_photos

NOW, BEFORE, PEER = "headstart", "headstart before", "torchvision"
ROOT = Path(__file__).parent.parent
_COMPARED = 20  # photos whose pixels are compared with those of the whole image


def ours(checkout: Path, photos: Path, home: Path) -> dict[str, float]:
    """One run of the command from a checkout, with a cache of its own."""
    command = [
        sys.executable,
        "-m",
        "headstart",
        "transfer",
        "photos",
        str(photos),
        "-o",
        str(home / "model"),
    ]
    found = run([*command, "--json"], PYTHONPATH=str(checkout / "src"), HEADSTART_CACHE=str(home / "cache"))
    rows = {row["strategy"]: row["accuracy"]["value"] for row in found["result"]["rows"]}
    return {"wall_s": found["wall_s"], "accuracy": rows["probe"]}


def peer(photos: str) -> None:
    """Torchvision's pipeline, the network in eager PyTorch, and a logistic regression; prints one line of JSON."""
    import torch
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_score
    from torchvision import datasets, transforms

    from headstart.sources.photos.body import timm_network
    from headstart.sources.photos.kind import SIZES
    from headstart.sources.photos.weights import read_weights
    from headstart.sources.registry import open_source

    size, source = SIZES["photos"], open_source("photos")
    network = timm_network(size.timm_name, read_weights(size.file, "photos"), source)
    network.reset_classifier(0)
    spec = source.input
    pipeline = transforms.Compose(
        [
            transforms.Resize(round(spec.height_px / spec.crop_share), transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(spec.height_px),
            transforms.ToTensor(),
            transforms.Normalize(spec.mean, spec.std),
        ]
    )
    images = datasets.ImageFolder(photos, pipeline)
    rows, labels = [], []
    with torch.no_grad():
        for batch, codes in torch.utils.data.DataLoader(images, batch_size=32, num_workers=2):
            rows.append(network(batch).numpy())
            labels.append(codes.numpy())
    score = cross_val_score(
        LogisticRegression(max_iter=1_000), np.concatenate(rows), np.concatenate(labels), cv=10
    )
    print(json.dumps({"accuracy": float(score.mean())}))


def apart(photos: Path) -> dict[str, dict[str, float]]:
    """By how many levels the pixels of reduced photos differ from those of the whole ones."""
    from headstart.data.images.fit import fit_bytes
    from headstart.sources.photos.kind import photos_input

    spec, means, most = photos_input(), [], []
    for path in sorted(photos.rglob("*.jpg"))[:_COMPARED]:
        data = path.read_bytes()
        reduced, full = (fit_bytes(data, "x", one).astype(int) for one in (spec, replace(spec, version=1)))
        means.append(float(np.abs(reduced - full).mean()))
        most.append(float(np.abs(reduced - full).max()))
    return {"levels apart, mean": spread(means), "levels apart, most": spread(most)}


def main() -> None:
    arguments = parser()
    arguments.add_argument("--before", help="a checkout of an older version")
    arguments.add_argument("--photos", type=int, default=200)
    arguments.add_argument("--width", type=int, default=4_000)
    arguments.add_argument("--height", type=int, default=3_000)
    args = arguments.parse_args()
    about = facts("headstart", "numpy", "pillow", "openvino", "torch", "torchvision", "timm")
    runs: dict[str, list[dict[str, float]]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        photos, size = Path(folder) / "photos", (args.width, args.height)
        n_bytes = make_photos(Path(args.data) / "hymenoptera", photos, args.photos, size)
        for number in range(args.repeats):
            home = Path(folder) / str(number)
            runs[NOW].append(ours(ROOT, photos, home / "now"))
            if args.before:
                runs[BEFORE].append(ours(Path(args.before), photos, home / "before"))
            found = run([sys.executable, __file__, "--peer", str(photos)], PYTHONPATH=str(ROOT / "src"))
            runs[PEER].append({name: found[name] for name in ("wall_s", "accuracy")})
        pixels = apart(photos)
    table = {
        who: {name: spread([one[name] for one in each]) for name in ("wall_s", "accuracy")}
        for who, each in runs.items()
    }
    now_s = table[NOW]["wall_s"]["median"]
    ratios = {who: round(one["wall_s"]["median"] / now_s, 2) for who, one in table.items() if who != NOW}
    made = {
        "photos": args.photos,
        "size_px": f"{args.width} x {args.height}",
        "megabytes": round(n_bytes / 1e6),
    }
    told({**about, **made}, {**table, "pixels": pixels}, times_as_fast_as=ratios)


if __name__ == "__main__":
    peer(sys.argv[2]) if sys.argv[1:2] == ["--peer"] else main()
