"""The recipe vgg16-mnist with a small network, in int8 and in fp32, with and without its controls.

Seconds, processor time and accuracies.

Every run has an empty cache for features and graphs. ``--dataset``, ``--labels`` and ``--draws`` make it smaller, for
a look. Alone on the machine:

    python benchmarks/vgg16_recipe.py --data DATA --weights WEIGHTS/mobilenetv1_100.keras_075_zeropad_in1k
"""

from __future__ import annotations

import re
import resource
import sys
import tempfile
from pathlib import Path
from typing import Any

from machine import facts, parser, run, spread, told

from headstart.workflows.recipes.recipe import recipe_text

WAYS: dict[str, list[str]] = {
    "int8": ["--precision", "int8"],
    "int8, no controls": ["--precision", "int8", "--no-controls"],
    "fp32": [],
    "fp32, no controls": ["--no-controls"],
}


def main() -> None:
    arguments = parser(repeats=1)
    arguments.add_argument("--weights", required=True, help="folder of a network of timm")
    arguments.add_argument("--dataset", default="mnist")
    arguments.add_argument("--labels", type=int, default=100, help="per class")
    arguments.add_argument("--draws", type=int, default=5)
    arguments.add_argument("--ways", nargs="*", choices=tuple(WAYS), default=list(WAYS))
    args = arguments.parse_args()
    about = facts("headstart", "numpy", "openvino", "torch", "timm")
    seconds: dict[str, dict[str, list[float]]] = {way: {"wall_s": [], "processor_s": []} for way in args.ways}
    rows: dict[str, dict[str, float]] = {}
    for _ in range(args.repeats):
        for way in args.ways:
            with tempfile.TemporaryDirectory() as home:
                found, processor_s = measured(Path(home), args, WAYS[way])
            seconds[way]["wall_s"].append(found["wall_s"])
            seconds[way]["processor_s"].append(processor_s)
            rows[way] = {one["strategy"]: one["accuracy"]["value"] for one in found["rows"]}
    table = {way: {name: spread(values) for name, values in one.items()} for way, one in seconds.items()}
    told(about, table, accuracies=rows, labels_per_class=args.labels, draws=args.draws)


def measured(home: Path, args: Any, options: list[str]) -> tuple[dict[str, Any], float]:
    """The result of one run as JSON, and the processor time of its process, user and system."""
    recipe = home / "vgg16-mnist.toml"
    text = re.sub(r"(?m)^draws = .*", f"draws = {args.draws}", recipe_text("vgg16-mnist"))
    recipe.write_text(re.sub(r"(?m)^labels_per_class = .*", f"labels_per_class = {args.labels}", text))
    command = [sys.executable, "-m", "headstart", "run", str(recipe), "--data", args.dataset]
    command += ["--source", f"timm:local-dir:{args.weights}", "-o", str(home / "run"), "--json", *options]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    found = run(command, HEADSTART_DATA=args.data, HEADSTART_CACHE=str(home / "cache"))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return found, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
