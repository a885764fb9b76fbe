"""The model card of a study: readable by a hub, complete, and safe with any name."""

from __future__ import annotations

from dataclasses import replace

import yaml
from test_report_full import full_result

from headstart.report.card import summary_card


def head(card: str) -> dict[str, object]:
    parts = card.split("---\n")
    assert parts[0] == ""
    return yaml.safe_load(parts[1])


def test_the_head_is_readable_by_a_hub() -> None:
    result = full_result()
    (entry,) = head(summary_card(result))["model-index"]
    metrics = {one["type"]: one["value"] for one in entry["results"][0]["metrics"]}
    assert list(metrics) == ["accuracy", "precision", "recall", "f1"]
    assert abs(metrics["accuracy"] - result.evaluations[0].accuracy.value) < 1e-5
    f1 = [one.f1.value for one in result.evaluations[0].per_class]
    assert abs(metrics["f1"] - sum(f1) / len(f1)) < 1e-5


def test_the_page_says_verdict_rows_protocol_and_command() -> None:
    result = full_result()
    card = summary_card(result)
    for text in (result.verdict, result.protocol, result.facts["command"], *result.remarks):
        assert text in card
    assert card.count("| probe |") == sum(row.strategy == "probe" for row in result.rows)


def test_any_title_stays_a_title() -> None:
    result = replace(full_result(), title='a: "b" # c\nd')
    assert head(summary_card(result))["model-index"][0]["name"] == 'a: "b" # c\nd'


def test_without_evaluations_there_are_no_metrics() -> None:
    assert "model-index" not in head(summary_card(replace(full_result(), evaluations=())))
