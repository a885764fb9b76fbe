"""The changelog's newest version is the package's."""

from __future__ import annotations

import re
from pathlib import Path

import headstart


def test_the_newest_entry_is_this_version():
    text = (Path(__file__).parent.parent / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.search(r"^## \[(\d+\.\d+\.\d+)\]", text, flags=re.MULTILINE)
    assert newest is not None
    assert newest[1] == headstart.__version__
