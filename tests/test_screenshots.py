"""Pictures of reports: cut to size, without the images of other people, stamped with the code they show."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent.parent / "tools"))

import results
import screenshots

PAGE = """<!doctype html><style>body { margin: 0 } .examples { height: 3000px; background: #f00 }
p { margin: 0; height: 3000px; background: #00f }</style>
<ul class="examples"><li>a letter</li></ul><p></p>"""
SHOT = screenshots.Shot("letters", "run/report.html", 300, 400)


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(screenshots, "ROOT", tmp_path)
    folder = results.folder_of(tmp_path, "letters")
    (folder / "run").mkdir(parents=True)
    (folder / "run/report.html").write_text(PAGE, encoding="utf-8")
    (folder / "code").write_text("abc123", encoding="utf-8")
    return tmp_path


@pytest.mark.skipif(not any(map(shutil.which, screenshots.BROWSERS)), reason="no browser on the PATH")
def test_a_report_is_taken_without_its_examples_and_stamped(checkout: Path):
    place = checkout / "letters.png"
    screenshots.report_shot(SHOT, place)
    with Image.open(place) as image:
        assert image.size == (300, 400)
        assert image.convert("RGB").getcolors() == [(300 * 400, (0, 0, 255))]
    assert results.stamped(place) == "abc123"


def test_a_report_that_is_not_there_says_what_makes_it(checkout: Path):
    shutil.rmtree(checkout / "runs")
    with pytest.raises(SystemExit, match="is not there, expected the report of figure letters; run: python"):
        screenshots.report_shot(SHOT, checkout / "letters.png")


def test_without_a_browser_it_says_what_to_install(checkout: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(
        SystemExit, match=r"no browser is on the PATH, expected one of chromium, .*; for example:"
    ):
        screenshots.report_shot(SHOT, checkout / "letters.png")


def test_a_smoothed_line_keeps_its_ends():
    line = screenshots.smooth([(0.0, 0.0), (1.0, 0.0), (1.0, 1.0)])
    assert (line[0], line[-1], (1.0, 0.0) in line) == ((0.0, 0.0), (1.0, 1.0), False)
