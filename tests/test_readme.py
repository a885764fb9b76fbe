"""What the README tells people to type works: its commands on bundled data, its Python as it stands."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
COMMANDS = [line.partition("#")[0].strip() for line in README.splitlines() if line.startswith("headstart ")]
# data and weights that a download or the user must bring; the demo has a test of its own
NOT_HERE = ("mnist", "MODEL", "timm:", "photos", "insects", "letters", "headstart teach", "omniglot-greek")
ON_BUNDLED_DATA = [command for command in COMMANDS if not any(word in command for word in NOT_HERE)]


def test_the_readme_has_commands_to_try():
    assert len(ON_BUNDLED_DATA) >= 5


@pytest.mark.slow
def test_every_command_on_bundled_data_works(tmp_path):
    for command in ON_BUNDLED_DATA:
        words = [sys.executable, "-m", "headstart", *command.split()[1:]]
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}\n{done.stderr}"
        assert done.stdout.strip()


def test_the_python_works(tmp_path, monkeypatch, capsys):
    (code,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {})
    assert "'even'" in capsys.readouterr().out


@pytest.mark.parametrize("path", re.findall(r"\]\(([^)#]+)\)", README))
def test_every_link_leads_somewhere(path):
    assert path.startswith("https://") or (Path(__file__).parent.parent / path).exists()
