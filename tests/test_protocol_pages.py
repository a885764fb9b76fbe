"""The pages on protocols: their examples print what they say, and every page has the same parts."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent / "docs/protocols"
PAGES = sorted(page for page in FOLDER.glob("*.md") if page.name != "README.md")
PARTS = (
    "When",
    "What the intervals are about",
    "The formulas",
    "Example",
    "How often it is right",
    "Sources",
)


def faults_of(text: str, name: str) -> str:
    """What doctest says of the Python blocks of a page, which share their names."""
    blocks = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    found: list[str] = []
    test = doctest.DocTestParser().get_doctest("\n".join(blocks), {}, name, None, 0)
    assert test.examples, f"{name} has no example"
    doctest.DocTestRunner(verbose=False).run(test, out=found.append)
    return "".join(found)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_examples_print_what_they_say(page):
    assert not faults_of(page.read_text(encoding="utf-8"), page.stem)


def test_a_wrong_number_on_a_page_is_found():
    assert "Expected" in faults_of("```python\n>>> 1 + 1\n3\n```", "wrong")


def test_every_page_has_the_same_parts():
    faults = [
        f"{page.name}: {found}"
        for page in PAGES
        if (found := tuple(re.findall(r"^## (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE))) != PARTS
    ]
    assert not faults, "\n".join(faults)
