"""The model card of a study: its figures in the format that model hubs read."""

from __future__ import annotations

import json

from headstart.evaluation.records import Score
from headstart.report.numbers import fact_name
from headstart.report.paths import shareable
from headstart.report.records import Report

__all__ = ["summary_card"]


def summary_card(result: Report) -> str:
    """Write the model card as Markdown with a YAML head: the hub's ``model-index``, verdict, table, protocol.

    Mitchell et al. Model Cards for Model Reporting. FAT* 2019, arXiv:1810.03993.
    """
    result = shareable(result)
    lines = ["---", "library_name: headstart", "pipeline_tag: image-classification"]
    lines += _index(result)
    lines += ["---", "", f"# {' '.join(result.title.split())}", "", result.verdict, "", result.summary, ""]
    if result.rows:
        lines += ["| strategy | labels per class | accuracy, % | 95 % interval |", "|---|---|---|---|"]
        lines += [
            f"| {row.strategy} | {'all' if row.labels_per_class is None else row.labels_per_class} "
            f"| {100 * row.accuracy.value:.2f} | {_span(row.accuracy)} |"
            for row in result.rows
        ]
        lines.append("")
    lines += ["## How it was evaluated", "", result.protocol or f"On {result.judged_on} images.", ""]
    if result.calibrations:
        first = result.calibrations[0]
        lines += [
            f"Probabilities: calibration error {100 * first.ece:.1f} points, Brier score {first.brier:.3f}, "
            f"log loss {first.nll:.3f} nats on {first.n:,} images.",
            "",
        ]
    limits = [*result.remarks, *result.findings]
    if limits:
        lines += ["## Limits", "", *(f"- {one}" for one in limits), ""]
    lines += ["## How to reproduce these results", "", "```", result.facts.get("command", ""), "```", ""]
    lines += [f"- {fact_name(name)}: {text}" for name, text in result.facts.items() if name != "command"]
    return "\n".join(lines) + "\n"


def _index(result: Report) -> list[str]:
    """The probe's accuracy, and precision, recall and F1 as means over classes, as the hub reads them."""
    if not result.evaluations:
        return []
    found = result.evaluations[0]
    here = [one for one in found.per_class if one.name not in found.absent]
    metrics = {
        "accuracy": found.accuracy.value,
        "precision": sum(one.precision.value for one in here) / len(here),
        "recall": sum(one.recall.value for one in here) / len(here),
        "f1": sum(one.f1.value for one in here) / len(here),
    }
    # user-given names as JSON strings, which are valid YAML whatever they contain
    lines = ["model-index:", f"- name: {json.dumps(result.title, ensure_ascii=False)}", "  results:"]
    lines += ["  - task:", "      type: image-classification", "    dataset:"]
    lines += [
        "      type: custom",
        f"      name: {json.dumps(found.title, ensure_ascii=False)}",
        "    metrics:",
    ]
    for name, value in metrics.items():
        lines += [f"    - type: {name}", f"      value: {value:.6g}"]
    return lines


def _span(score: Score) -> str:
    return f"{100 * score.low:.1f} to {100 * score.high:.1f}"
