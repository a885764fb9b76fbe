"""What comes from strangers cannot steer a terminal."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from command import Run
from headstart.errors import HeadstartError, printable
from headstart.interfaces.cli.terminal import harmless_output
from headstart.report.columns import aligned
from tiny_model import picture, tiny_model

WICKED = "cat\x1b[2J\x1b]0;owned\x07\u202egpj\nheadstart: done"


def test_signs_that_steer_are_escaped_and_letters_are_not() -> None:
    shown = printable(WICKED)
    assert shown == "cat\\u001b[2J\\u001b]0;owned\\u0007\\u202egpj\\nheadstart: done"
    for kept in ("Ω mega", "naïve 猫", "👩\u200d🌾", "می\u200cخواهم", "a\u00a0b"):
        assert printable(kept) == kept
    assert json.loads(f'"{printable(WICKED)}"') == WICKED, "in JSON the text stays the same"
    assert str(HeadstartError(WICKED)) == printable(WICKED, keep="\n")


def test_a_row_of_a_table_is_one_line() -> None:
    assert aligned([[WICKED, "1"], ["b", "2"]]).count("\n") == 1


def test_output_is_harmless_and_then_as_before(capsys: pytest.CaptureFixture[str]) -> None:
    before = sys.stdout
    with harmless_output():
        print("a\tb\n" + WICKED)
        print(WICKED, file=sys.stderr)
        assert sys.stdout.isatty() is before.isatty()
    assert sys.stdout is before
    out, err = capsys.readouterr()
    assert "\x1b" not in out + err and "\u202e" not in out + err and out.startswith("a\tb\n")


def test_a_model_of_a_stranger_is_described_and_used_harmlessly(run: Run, desk: Path) -> None:
    model = tiny_model()
    model = replace(model, manifest=replace(model.manifest, name=WICKED, classes=("dark", WICKED)))
    model.save("model")
    Path("white.png").write_bytes(picture(255))
    for words in (
        ("inspect", "model"),
        ("predict", "model", "white.png"),
        ("predict", "model", "white.png", "--json"),
    ):
        said = run(*words)
        assert said.code == 0 and "\\u001b[2J" in said.out, said
        assert "\x1b" not in said.out + said.err and "\u202e" not in said.out + said.err
        assert "\nheadstart: done" not in said.out
    assert said.document["answers"][0]["name"] == WICKED
