"""VGG16 on MNIST at 224 px, frozen: ours in fp32 and in int8 against Keras and torch bf16, in turns.

Keras runs a part of one epoch and extrapolates to ten, as its script says; ours runs the whole job with
a cold feature cache and a cold graph, in fp32 as often as ``--fp32`` says (it takes minutes). Alone on the machine:

    python benchmarks/vgg16_vs_keras.py --keras-python VENV/bin/python --keras-script SCRIPT --data DATA
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from machine import facts, parser, run, spread, told

HERE = Path(__file__).parent


def main() -> None:
    arguments = parser()
    arguments.add_argument("--keras-python", required=True)
    arguments.add_argument("--keras-script", required=True)
    arguments.add_argument("--fp32", type=int, default=1, help="turns with ours in fp32")
    args = arguments.parse_args()
    about = facts("headstart", "numpy", "openvino", "torch", "timm")
    runs: dict[str, list[dict[str, float]]] = {"ours": [], "ours int8": [], "keras": [], "torch bf16": []}
    for turn in range(args.repeats):
        ours_now = (("ours", "fp32"), ("ours int8", "int8"))[turn >= args.fp32 :]
        for who, precision in ours_now:
            with tempfile.TemporaryDirectory() as cache:
                ours = [sys.executable, str(HERE / "vgg16_ours.py"), "--precision", precision]
                runs[who].append(run(ours, HEADSTART_DATA=args.data, HEADSTART_CACHE=cache))
        runs["torch bf16"].append(run([sys.executable, str(HERE / "vgg16_torch.py")]))
        runs["keras"].append(run([args.keras_python, args.keras_script, "--data", args.data]))
    wanted = {
        "ours": ("wall_s", "extraction_s", "images_per_s"),
        "ours int8": ("wall_s", "extraction_s", "images_per_s"),
        "torch bf16": ("images_per_s",),
        "keras": ("train_images_per_s", "eval_images_per_s", "extrapolated_total_s"),
    }
    table = {
        who: {name: spread([one[name] for one in runs[who]]) for name in names}
        for who, names in wanted.items()
    }
    speed = table["ours"]["images_per_s"]["median"]
    told(
        about,
        table,
        whole_job_times_as_fast={
            who: round(table["keras"]["extrapolated_total_s"]["median"] / table[who]["wall_s"]["median"], 2)
            for who in ("ours", "ours int8")
        },
        extraction_against_keras=round(speed / table["keras"]["train_images_per_s"]["median"], 2),
        extraction_against_torch_bf16=round(speed / table["torch bf16"]["images_per_s"]["median"], 2),
    )


if __name__ == "__main__":
    main()
