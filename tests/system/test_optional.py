"""The one door to optional packages."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from headstart.errors import MissingExtraError
from headstart.system.optional import check_installed, require


def test_gives_what_is_installed() -> None:
    assert require("json", extra="train", for_="engine 'torch'") is json
    assert require("json.decoder", extra="train", for_="x").__name__ == "json.decoder"


def test_says_what_is_missing_and_how_to_get_it() -> None:
    with pytest.raises(MissingExtraError) as caught:
        require("no_such_package_of_ours.inner", extra="serve", for_="runner 'x'")
    said = str(caught.value)
    assert said.startswith("runner 'x': expected the package no_such_package_of_ours") and "\n" not in said
    assert said.endswith("pip install 'headstart[serve]'")
    assert isinstance(caught.value, ImportError)


def test_a_check_imports_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "loudpackage.py").write_text("raise RuntimeError('imported')\n")
    monkeypatch.syspath_prepend(tmp_path)
    check_installed("loudpackage", extra="teach", for_="x")
    with pytest.raises(
        MissingExtraError, match=r"^x: expected the package nopackage, .*headstart\[teach\]'$"
    ):
        check_installed("nopackage", extra="teach", for_="x")


def test_a_broken_package_raises_its_own_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Telling somebody to install what is installed would send them the wrong way."""
    (tmp_path / "brokenpackage.py").write_text("import not_there_either\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError) as caught:
        require("brokenpackage", extra="train", for_="x")
    assert not isinstance(caught.value, MissingExtraError) and caught.value.name == "not_there_either"


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_process_forked_after_training_trains() -> None:
    """It waited for ever for threads of its parent."""
    code = """
import multiprocessing, torch
import headstart as hs
torch.set_num_threads(2)
def train():
    return hs.train("digits:0-1", network="cnn", settings=hs.TrainSettings(epochs=1)).classes
train()
with multiprocessing.get_context("fork").Pool(1) as pool:
    print(pool.apply_async(train).get(240))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=300
    )
    assert done.stdout == "('0', '1')\n", done.stderr
