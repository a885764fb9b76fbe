"""Ants and bees with a frozen network: ours against the usual PyTorch tutorial, process by process in turns.

Ours is ``headstart transfer`` as a user types it, from process start to the printed accuracies: with nothing
cached, with the network's graph cached (a second dataset), and with the features cached too (a second run).
The peer is a frozen backbone with a linear layer, DataLoader and SGD, 10 epochs. Alone on the machine:

    python benchmarks/folder_vs_torch.py --torch-script SCRIPT --data DATA --weights FOLDER
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from machine import facts, parser, run, spread, told


def ours(weights: str, photos: str, cache: Path, output: Path) -> dict[str, float]:
    """One run of the command; what it says of itself."""
    command = [sys.executable, "-m", "headstart", "transfer", f"timm:local-dir:{weights}", photos]
    found = run([*command, "-o", str(output), "--json"], HEADSTART_CACHE=str(cache))
    rows = {row["strategy"]: row["accuracy"]["value"] for row in found["result"]["rows"]}
    return {"wall_s": found["wall_s"], "val_accuracy": rows["probe"]}


def main() -> None:
    arguments = parser()
    arguments.add_argument("--torch-script", required=True)
    arguments.add_argument("--weights", required=True, help="a folder in timm's local format")
    args = arguments.parse_args()
    about = facts("headstart", "numpy", "openvino", "torch", "timm")
    photos, weights = f"{args.data}/hymenoptera", args.weights.rstrip("/")
    runs: dict[str, list[dict[str, float]]] = {
        "nothing cached": [],
        "graph cached": [],
        "all cached": [],
        "torch peer": [],
    }
    for _ in range(args.repeats):
        with tempfile.TemporaryDirectory() as folder:
            home = Path(folder)
            runs["nothing cached"].append(ours(weights, photos, home / "cache", home / "model"))
            shutil.rmtree(home / "cache" / "features")
            runs["graph cached"].append(ours(weights, photos, home / "cache", home / "model"))
            runs["all cached"].append(ours(weights, photos, home / "cache", home / "model"))
        peer = [sys.executable, args.torch_script, "--folder", photos, "--network", f"local-dir:{weights}"]
        found = run(peer)
        runs["torch peer"].append({"wall_s": found["wall_s"], "val_accuracy": found["val_accuracy_last"]})
    table = {
        who: {name: spread([one[name] for one in each]) for name in ("wall_s", "val_accuracy")}
        for who, each in runs.items()
    }
    peer_s = table["torch peer"]["wall_s"]["median"]
    ratios = {
        who: round(peer_s / one["wall_s"]["median"], 1) for who, one in table.items() if who != "torch peer"
    }
    told({**about, "network": Path(weights).name}, table, times_as_fast=ratios)


if __name__ == "__main__":
    main()
