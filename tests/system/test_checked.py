"""Values with a checksum: back as they were, or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from headstart.system.array_file import DamagedError
from headstart.system.checked import read_checked, write_checked

VALUE = {"name": "ä", "sizes": [1, 2], "mean": [0.485, 1e-7], "none": None, "deep": {"b": True, "a": ""}}


def test_a_value_comes_back(tmp_path: Path) -> None:
    assert read_checked(tmp_path / "none.json") is None
    write_checked(tmp_path / "one.json", VALUE)
    assert read_checked(tmp_path / "one.json") == VALUE


@pytest.mark.parametrize("text", ["{}", "null", "[1]", '{"name": "older"}', '{"sha256": "of the graph"}'])
def test_files_of_older_versions_count_as_absent(tmp_path: Path, text: str) -> None:
    (tmp_path / "old.json").write_text(text)
    assert read_checked(tmp_path / "old.json") is None


def test_no_flipped_bit_is_read(tmp_path: Path) -> None:
    path = tmp_path / "one.json"
    write_checked(path, VALUE)
    whole = path.read_bytes()
    for place in range(len(whole)):
        for bit in range(8):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :])
            try:
                assert read_checked(path) is None, (place, bit)
            except DamagedError:
                continue
    for content in (whole[:-1], whole + b"\n", b"", b"\xff"):
        path.write_bytes(content)
        with pytest.raises(DamagedError):
            read_checked(path)
