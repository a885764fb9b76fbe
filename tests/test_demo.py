"""`make demo`: its command needs no torch, ends in a gain over every control, and in a report with images."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# as in the base install: cannot be imported, and find_spec finds nothing
WITHOUT = """
import sys
for name in ("torch", "torchvision", "timm", "kornia", "ray", "gradio", "starlette", "pyarrow", "optuna"):
    sys.modules[name] = None
from headstart.interfaces.cli.main import main
sys.argv[0] = "headstart"
main()
"""


def demo() -> list[str]:
    """The words of the command, from the Makefile."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (line,) = re.findall(r"^demo:.*\n\t\$\(BIN\)/headstart (.+)$", makefile, flags=re.MULTILINE)
    return line.split()


def study(words: list[str], folder: Path) -> tuple[str, dict, str]:
    """What a study prints, its result and its report."""
    command = [sys.executable, "-c", WITHOUT, *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    home = folder / words[words.index("--output") + 1]
    result = json.loads((home / "result.json").read_text(encoding="utf-8"))
    return done.stdout, result, (home / "report.html").read_text(encoding="utf-8")


def test_the_readme_shows_the_command_of_the_demo() -> None:
    assert f"headstart {' '.join(demo())}\n" in (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_demo_on_three_letters_without_torch(tmp_path: Path) -> None:
    words = " ".join(demo()).replace("omniglot-greek", "omniglot-greek:alpha,beta,gamma")
    words = words.replace("--draws 10", "--draws 1").replace("--labels 1,2,all", "--labels 1").split()
    said, result, report = study(words, tmp_path)
    assert said.rstrip().endswith(str(Path("runs/demo/report.html")))
    strategies = {row["strategy"] for row in result["rows"]}
    assert strategies == {"probe", "scratch", "random frozen", "HOG", "raw pixels", "majority"}
    assert {row["labels_per_class"] for row in result["rows"]} == {1}
    assert "20 folds of whole groups" in result["protocol"]  # 45 test images are too few: pooled, by drawer
    assert result["facts"]["source"].endswith("trained on Omniglot (218 characters, none Greek)")
    assert "The control scratch is trained by the NumPy engine" in said
    assert report.count("data:image/png;base64,") > 3


@pytest.mark.slow
def test_the_demo_helps_by_much_over_every_control(tmp_path: Path) -> None:
    said, result, report = study(demo(), tmp_path)
    first = [one for one in result["comparisons"] if one["labels_per_class"] == 1]
    assert len(first) == 5 and all(one["verdict"] == "helps" for one in first)
    assert min(one["difference"]["value"] for one in first) > 0.08
    assert "With 1 label per class, transfer helps by" in said
    assert "tested on 360 others" in result["protocol"]
    assert "The most confident mistakes" in report and report.count("data:image/png;base64,") > 16
