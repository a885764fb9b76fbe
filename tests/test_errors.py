"""The exception tree: as drawn, so it is; and the sentence about near names."""

from __future__ import annotations

import builtins
import re

import pytest

from headstart import errors
from headstart.errors import HeadstartError, nearest

LINE = re.compile(r"^(?P<lead>[ |]*(?:\|--|`--) )?(?P<name>\w+Error)(?:\((?P<builtin>\w+)\))?\s")


def drawn() -> dict[str, tuple[str | None, str | None]]:
    """Class to (parent, builtin), read off the drawing at the top of the module."""
    found: dict[str, tuple[str | None, str | None]] = {}
    parents: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        text = line.removeprefix("    ")
        match = LINE.match(text + " ")
        if match is None or text == line:
            continue
        depth = len(match["lead"] or "") // 4
        parents[depth:] = [match["name"]]
        found[match["name"]] = (parents[depth - 1] if depth else None, match["builtin"])
    return found


def real() -> list[type[HeadstartError]]:
    found = vars(errors).values()
    return [kind for kind in found if isinstance(kind, type) and issubclass(kind, HeadstartError)]


def test_the_drawing_shows_every_class_once() -> None:
    assert sorted(drawn()) == sorted(kind.__name__ for kind in real())
    assert {*drawn(), "nearest", "printable", "unknown"} == set(errors.__all__)


@pytest.mark.parametrize("kind", real(), ids=lambda kind: kind.__name__)
def test_a_class_has_the_parents_drawn(kind: type[HeadstartError]) -> None:
    parent, builtin = drawn()[kind.__name__]
    bases = [base.__name__ for base in kind.__bases__]
    assert bases == ([parent, builtin] if builtin else [parent or "Exception"])
    if builtin:
        assert issubclass(kind, getattr(builtins, builtin))


@pytest.mark.parametrize("kind", real(), ids=lambda kind: kind.__name__)
def test_the_sentence_is_shown_as_written(kind: type[HeadstartError]) -> None:
    """A KeyError would quote it, an OSError would put a number before it."""
    assert str(kind("x is 1, expected 2; do this")) == "x is 1, expected 2; do this"
    assert str(kind()) == kind.__name__
    with pytest.raises(HeadstartError):
        raise kind("x")


def test_every_class_but_the_root_has_a_builtin_to_catch_it_by() -> None:
    for kind in real():
        if kind is not HeadstartError:
            builtin = {base for base in kind.__mro__ if base.__module__ == "builtins"}
            assert builtin - {Exception, BaseException, object}


def test_near_names_come_first() -> None:
    assert nearest("mnits", ["mnist", "kmnist", "usps"]) == "nearest are mnist, kmnist"
    assert nearest("conv", [f"conv{i}" for i in range(9)], limit=2).count(",") == 1


def test_without_near_names_all_are_named_up_to_ten() -> None:
    assert nearest("zzz", ["usps", "mnist", "usps"]) == "known are mnist, usps"
    many = [f"layer{i:02}" for i in range(11)]
    assert nearest("q", many) == "known are " + ", ".join(many[:10]) + ", ..."
    assert nearest("q", many[:10]).endswith("layer09")
