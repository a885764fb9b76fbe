"""Texts that leave the machine say nothing about where its owner keeps files."""

from __future__ import annotations

from pathlib import Path

import pytest

from headstart.report import paths
from headstart.report.paths import without_folders


@pytest.mark.parametrize(
    ("word", "kept"),
    [
        ("/home/ann/photos", "photos"),
        ("--output=/home/ann/runs/m", "--output=m"),
        ("timm:local-dir:/srv/weights/resnet50", "timm:local-dir:resnet50"),
        ("/home/ann/m, fine-tuned", "m, fine-tuned"),
        ("C:\\Users\\ann\\photos", "photos"),
        ("~/photos", "photos"),
        ("runs/digits", "runs/digits"),
        ("mnist:0-4", "mnist:0-4"),
        ("https://example.org/a/b.zip", "https://example.org/a/b.zip"),
        ("0.5/2", "0.5/2"),
    ],
)
def test_words_keep_their_last_name(word: str, kept: str) -> None:
    assert without_folders(word) == kept


def test_a_path_in_the_working_folder_is_relative_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert without_folders(f"{tmp_path}/runs/m") == "runs/m"


def test_paths_quoted_in_sentences_keep_a_class_and_a_name() -> None:
    said = "2 pairs, such as '/home/ann/photos/cat/1.png' and \"/home/ann/2.png\""
    assert paths._cut(said) == "2 pairs, such as 'cat/1.png' and \"2.png\""
