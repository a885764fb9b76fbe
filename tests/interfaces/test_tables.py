"""Printed tables: aligned columns, and JSON that every reader accepts."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from headstart.evaluation.metrics import evaluate
from headstart.evaluation.records import Difference, Score
from headstart.interfaces.cli.tables import cache_table, evaluation_table, pairs, result_table
from headstart.report.columns import aligned
from headstart.report.json import to_json
from headstart.report.records import Comparison, Report, Row
from headstart.system.stored import CacheEntry
from headstart.workflows.study.contestants import CONTESTANTS


def row(strategy: str, budget: int | None, value: float) -> Row:
    return Row(strategy, budget, Score(value, value - 0.01, value + 0.005, 1234), 3, 0.01, 0.5)


def study(*rows: Row) -> Report:
    return Report("A title", "s", "v", (), rows, (), (), (), {}, {})


def test_columns_line_up() -> None:
    text = aligned([["name", "n", "share"], ["a", "10", "0.5"], ["longer", "2", "-"]], left=2)
    assert text.splitlines() == ["name    n   share", "a       10    0.5", "longer  2       -"]


def test_nested_names_are_indented_and_lists_joined() -> None:
    text = pairs({"name": "m", "classes": ("a", "b"), "counts": {"a": 1, "bb": {"c": 2}}})
    assert text.splitlines() == [
        "name     m",
        "classes  a, b",
        "counts",
        "  a   1",
        "  bb",
        "    c  2",
    ]
    assert pairs({}) == ""


def test_the_result_table_has_a_row_per_strategy_and_a_column_per_budget() -> None:
    result = study(row("probe", 1, 0.5), row("raw pixels", 1, 0.25), row("probe", None, 0.995))
    title, _, header, first, second, *_, note = result_table(result).splitlines()
    assert title == "A title"
    assert header.split() == ["labels", "per", "class", "1", "all"]
    assert first == "probe             50.00 [49.0, 50.5]  99.50 [98.5, 100.0]"
    assert second.startswith("raw pixels  ") and second.endswith("25.00 [24.0, 25.5]                    -")
    assert "1,234 test images" in note


def test_the_result_table_says_what_its_rows_are() -> None:
    difference = Difference(0.2, 0.1, 0.3, 0.001, 100)
    result = replace(
        study(row("probe", None, 0.5), row("HOG", None, 0.25)),
        comparisons=(Comparison("probe", "HOG", None, difference, 0.001, "helps"),),
    )
    legend = result_table(result).split("\n\n")[2].splitlines()
    assert [line.partition(":")[0] for line in legend] == ["probe", "HOG"]
    assert legend[1] == f"HOG: control, {CONTESTANTS['HOG'].note}"


def test_the_evaluation_table_has_accuracy_classes_and_confusion() -> None:
    probs = np.eye(2, dtype=np.float32)[[0, 0, 0, 1, 1, 0]] * 0.8 + 0.1
    found = evaluate("m on d, test", probs, np.array([0, 0, 0, 1, 1, 1]), ("cat", "dog"))
    head, classes, confusion = evaluation_table(found).split("\n\n")
    assert head.startswith("accuracy 0.8333 [0.4365, 0.9699] on 6 images, loss ")
    assert [line.split()[0] for line in classes.splitlines()] == ["class", "cat", "dog", "average"]
    assert classes.splitlines()[1].split()[-1] == "3"
    assert [line.split() for line in confusion.splitlines()[1:]] == [["cat", "3", "0"], ["dog", "1", "2"]]


def test_the_cache_table_sums_up() -> None:
    entries = [
        CacheEntry("ab" * 32, {"tap": "hidden1"}, (10, 20), 3 * 2**20, 0.0),
        CacheEntry("cd" * 32, {}, (5,), 2**19, 0.0),
        CacheEntry("ef" * 32, {}, (), 2**19, 0.0, "unfinished"),
        CacheEntry("01" * 32, {"network": "resnet\x1b[2J"}, (), 2**20, 0.0, kind="graph"),
        CacheEntry("23" * 16, {}, (), 2**20, 0.0, kind="network"),
        CacheEntry("45" * 16, {}, (), 2**20, 0.0, kind="network"),
    ]
    lines = cache_table(entries).splitlines()
    assert lines[-1] == "2 arrays, 1 graph, 2 networks and 1 unfinished or unusable, 7.0 MiB"
    assert lines[1].split()[:4] == ["abababababab", "features", "hidden1", "10x20"]
    assert lines[4].split()[:3] == ["010101010101", "graph", "resnet\\u001b[2J"]
    assert cache_table([]) == "0 arrays, 0.0 MiB"


def test_json_has_only_valid_values() -> None:
    value = {"score": Score(math.nan, -math.inf, 1.0, 3), "where": Path("a/b"), 5: (1, None, "Ω")}
    text = to_json(value)
    assert "Ω" in text and "NaN" not in text and "Infinity" not in text
    assert json.loads(text) == {
        "score": {"value": None, "low": None, "high": 1.0, "n": 3},
        "where": "a/b",
        "5": [1, None, "Ω"],
    }


def test_json_keeps_every_digit() -> None:
    assert json.loads(to_json([1 / 3, 1e-300])) == [1 / 3, 1e-300]


def test_json_refuses_unknown_types() -> None:
    with pytest.raises(TypeError, match="not JSON serializable"):
        to_json({"rows": np.zeros(2)})
