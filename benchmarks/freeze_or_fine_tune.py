"""When to freeze and when to fine-tune: the learning curves of finished runs, side by side, as one image.

In: folders that `headstart run RECIPE --strategies probe,finetune,scratch` or a study wrote. Out: a PNG,
their rows, verdicts and remarks as text, and the same as JSON on the last line, by the name of the folder.
Nothing is computed: all of it is in their result.json.

python benchmarks/freeze_or_fine_tune.py runs/odd-to-even-mnist runs/parity-mnist --image freeze-or-fine-tune.png
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

COLOURS = {
    "probe": ("frozen: the probe", "#0063a8", "-"),
    "finetune": ("fine-tuned, where that beat the probe", "#d9822b", "-"),
    "finetune, unchecked": ("fine-tuned, always", "#d9822b", ":"),
    "scratch": ("from scratch", "#666666", "--"),
}

KEPT = ("title", "verdict", "remarks", "sizes", "rows", "comparisons")


def curve(result: dict[str, Any], strategy: str) -> list[tuple[int, float, float, float]]:
    """Labels per class, accuracy and its interval in %, by budget; all labels last."""
    smallest = result["sizes"]["train"] // result["sizes"]["classes"]
    found = []
    for row in result["rows"]:
        if row["strategy"] == strategy:
            score = row["accuracy"]
            labels = row["labels_per_class"] or smallest
            found.append((labels, *(100 * score[key] for key in ("value", "low", "high"))))
    return found


def tell(result: dict[str, Any]) -> None:
    """Every row, the verdict, the remarks."""
    print(f"\n{result['title']}")
    for row in sorted(result["rows"], key=lambda one: one["labels_per_class"] or sys.maxsize):
        score = {key: 100 * row["accuracy"][key] for key in ("value", "low", "high")}
        print(
            f"  {row['strategy']:22} {row['labels_per_class'] or 'all':>4}  {score['value']:.2f} "
            f"[{score['low']:.2f}, {score['high']:.2f}]"
        )
    print("  " + result["verdict"])
    for remark in result["remarks"]:
        print(f"  - {remark}")


def main() -> None:
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    parser = argparse.ArgumentParser()
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--image", type=Path, required=True)
    asked = parser.parse_args()
    results = {}
    figure, panels = pyplot.subplots(1, len(asked.runs), figsize=(5.2 * len(asked.runs), 4.2), dpi=140)
    for axes, run in zip([panels] if len(asked.runs) == 1 else panels, asked.runs, strict=True):
        result = json.loads((run / "result.json").read_text())
        tell(result)
        results[run.name] = {name: result[name] for name in KEPT}
        for strategy, (name, colour, line) in COLOURS.items():
            points = curve(result, strategy)
            if not points:
                continue
            labels, values, lows, highs = zip(*points, strict=True)
            axes.fill_between(labels, lows, highs, color=colour, alpha=0.12, lw=0)
            axes.plot(labels, values, line, color=colour, marker="o", ms=4, lw=2, label=name)
        axes.set_xscale("log")
        axes.set_xticks(labels, [*map(str, labels[:-1]), "all"])
        axes.minorticks_off()
        axes.set_xlabel("labels per class")
        axes.set_title(result["title"], fontsize=10, loc="left")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#dddddd")
    first = figure.axes[0]
    first.set_ylabel("accuracy on test images, %")
    figure.legend(*first.get_legend_handles_labels(), loc="lower center", ncols=4, frameon=False, fontsize=9)
    figure.tight_layout(rect=(0, 0.06, 1, 1))
    figure.savefig(asked.image)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
