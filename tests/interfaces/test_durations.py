"""Durations as users write them."""

from __future__ import annotations

import pytest

from headstart.errors import SettingError
from headstart.interfaces.cli.durations import parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("5m", 300), ("1h", 3600), ("1.5 m", 90), ("7", 7), (" .5h ", 1800)]
)
def test_a_number_and_a_unit(text: str, seconds: float) -> None:
    assert parse_duration(text, "budget") == seconds


@pytest.mark.parametrize("text", ["", "5 minutes", "0s", "-5m", "m", "1h30m", "nan", "5d"])
def test_an_invalid_duration_is_refused(text: str) -> None:
    with pytest.raises(
        SettingError, match=r"budget is .* expected a time above 0; write it like 90s, 5m or 1h"
    ):
        parse_duration(text, "budget")


@pytest.mark.parametrize("text", ["", "1d", "s", "nan", "-1s"])
def test_an_invalid_duration_is_refused_where_zero_is_allowed(text: str) -> None:
    with pytest.raises(SettingError, match=r"checkpoint-every is .* expected a time; write"):
        parse_duration(text, "checkpoint-every", zero=True)


def test_zero_where_it_is_allowed() -> None:
    assert parse_duration("0", "checkpoint-every", zero=True) == 0
