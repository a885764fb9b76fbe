"""Results of figures: their commands run, what they print reduced to what is quoted, and written.

Every file begins with where it comes from: date, commands, machine, versions, commit, and the digest of the
code. Paths of this machine do not get into it: a command is written with its placeholders.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import string
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from time import perf_counter
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))

from machine import facts

__all__ = [
    "Header",
    "Made",
    "folder_of",
    "header_of",
    "made_with",
    "read_result",
    "reduced",
    "run_figure",
    "stamp",
    "stamped",
]

_PACKAGES = ("headstart", "numpy", "scikit-learn", "torch", "timm", "onnxruntime", "openvino")
_STAMP = "figure-code"
_HEADED = re.compile(r"^# (\w+): (.*)$", flags=re.MULTILINE)


@dataclass(frozen=True)
class Header:
    """Where a result comes from; ``code`` is the digest of what it depends on, ``seconds`` what it took."""

    code: str
    commands: Sequence[str]
    date: str
    machine: Mapping[str, Any]
    versions: Mapping[str, str]
    commit: str
    seconds: float | None


@dataclass(frozen=True)
class Made:
    """What a figure's commands gave: all but the digest of a `Header`, the result, the text they printed."""

    about: Mapping[str, Any]
    result: Any
    printed: str

    def write(self, path: Path, header: Header, *, text: bool) -> None:
        """Write the JSON and, if asked, the text beside it, both under the header."""
        whole = json.dumps({**asdict(header), "result": self.result}, indent=1, ensure_ascii=False)
        path.write_text(f"{_flat(whole)}\n", encoding="utf-8")
        if text:
            lines = [f"# {name}: {_line(value)}" for name, value in asdict(header).items()]
            body = "\n".join([*lines, "", self.printed.strip("\n"), ""])
            path.with_suffix(".txt").write_text(body, encoding="utf-8")


def header_of(path: Path) -> Header:
    """The header of a result, JSON or text.

    Raises
    ------
    ValueError
        If there is none.
    """
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".json":
        found = json.loads(text)
    else:
        found = {name: _value(value) for name, value in _HEADED.findall(text.partition("\n\n")[0])}
    try:
        return Header(**{name: found[name] for name in Header.__dataclass_fields__})
    except KeyError as error:
        raise ValueError(
            f"benchmarks/results/{path.name} has no {error} in its header, expected one"
        ) from None


def read_result(path: Path) -> Any:
    """What a result file says, without its header."""
    return json.loads(path.read_text(encoding="utf-8"))["result"]


def reduced(value: Any, paths: Sequence[str]) -> Any:
    """Keep the named parts of a JSON value, such as ``rows.accuracy``; of a list, those of every entry.

    Examples
    --------
    >>> reduced({"a": 1, "rows": [{"b": 2, "c": 3}, {"b": 4}]}, ["rows.b"])
    {'rows': [{'b': 2}, {'b': 4}]}
    """
    if not paths or "" in paths:
        return value
    if isinstance(value, list):
        return [reduced(one, paths) for one in value]
    below: dict[str, list[str]] = {}
    for path in paths:
        name, _, rest = path.partition(".")
        below.setdefault(name, []).append(rest)
    return {name: reduced(value[name], rest) for name, rest in below.items() if name in value}


def stamp(image: Path, code: str) -> None:
    """Write the digest of the code into a PNG: a picture of figures is as old as they are."""
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text(_STAMP, code)
    with Image.open(image) as opened:
        opened.load()
        opened.save(image, pnginfo=info, optimize=True)


def stamped(image: Path) -> str:
    """The digest in a PNG; empty if there is none."""
    from PIL import Image

    with Image.open(image) as opened:
        return str(opened.info.get(_STAMP, ""))


def folder_of(root: Path, name: str) -> Path:
    """Where a figure's commands leave models and reports."""
    return root / "runs/figures" / name


def made_with(root: Path, name: str) -> str:
    """The digest of the code that left what is in a figure's folder; empty if it was not finished."""
    place = folder_of(root, name) / "code"
    return place.read_text(encoding="utf-8") if place.exists() else ""


def run_figure(
    commands: Sequence[str], root: Path, name: str, *, keep: Sequence[str] = (), part: str = ""
) -> Made:
    """Run a figure's commands.

    Parameters
    ----------
    commands : sequence of str
        Run in turn; the last one prints JSON, whole or as its last line. ``{out}`` is a new folder of the
        figure, any other ``{name}`` the value of the variable ``HEADSTART_NAME``.
    root : Path
        The checkout, where they run.
    name : str
        Of the figure.
    keep : sequence of str, optional
        As `reduced` takes it.
    part : str, optional
        The part of the JSON that is the result.

    Returns
    -------
    Made

    Raises
    ------
    LookupError
        If a variable is not set.
    ValueError
        If a command fails or prints no JSON.
    """
    out = folder_of(root, name)
    values = {"out": str(out), **_variables(commands)}
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    about = facts(*_installed())
    begun, printed = perf_counter(), ""
    # features and networks that earlier code computed would be found in the user's own cache
    with tempfile.TemporaryDirectory() as cache:
        for command in commands:
            printed = _run([word.format(**values) for word in shlex.split(command)], root, cache)
    machine = {key: about[key] for key in ("cpu", "cores", "load_before", "openblas_coretype")}
    versions = {key: about[key] for key in ("python", *_installed())}
    made = {
        "commands": tuple(commands),
        "date": about["date"],
        "machine": machine,
        "versions": versions,
        "commit": _commit(root),
        "seconds": round(perf_counter() - begun, 1),
    }
    found = _json(printed)
    if part and part not in found:
        raise ValueError(f"the JSON of its last command has no {part!r}, expected the result there")
    return Made(made, reduced(found[part] if part else found, keep), _without(values, printed))


def _variables(commands: Sequence[str]) -> dict[str, str]:
    names = {field for command in commands for _, field, _, _ in string.Formatter().parse(command) if field}
    found = {name: os.environ.get(f"HEADSTART_{name.upper()}", "") for name in names - {"out"}}
    missing = sorted(f"HEADSTART_{name.upper()}" for name, value in found.items() if not value)
    if missing:
        raise LookupError(
            f"{' and '.join(missing)} not set, expected a path; see the head of benchmarks/figures.toml"
        )
    return found


def _run(words: Sequence[str], root: Path, cache: str) -> str:
    """One command to its end; what it printed."""
    programs = {"headstart": [sys.executable, "-m", "headstart"], "python": [sys.executable]}
    command = [*programs.get(words[0], [words[0]]), *words[1:]]
    environment = {**os.environ, "HEADSTART_CACHE": cache}
    done = subprocess.run(command, cwd=root, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise ValueError(f"{shlex.join(words)} ended with status {done.returncode}, expected 0")
    return done.stdout


def _json(printed: str) -> Any:
    for text in (printed, printed.strip().rpartition("\n")[2]):
        try:
            return json.loads(text)
        except ValueError:
            continue
    raise ValueError("its last command printed no JSON, expected it whole or as the last line")


def _without(values: Mapping[str, str], printed: str) -> str:
    """The text with paths of this machine put back into placeholders, and no JSON at its end."""
    for name, value in sorted(values.items(), key=lambda item: -len(item[1])):
        printed = printed.replace(value, f"{{{name}}}")
    lines = printed.strip("\n").splitlines()
    return "\n".join(lines[:-1] if lines and lines[-1].startswith("{") else lines)


def _installed() -> Iterator[str]:
    for name in _PACKAGES:
        try:
            version(name)
        except PackageNotFoundError:
            continue
        yield name


def _commit(root: Path) -> str:
    """The commit that is checked out, with a plus sign where code differs from it."""

    def git(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=False)

    found = git("rev-parse", "--short=12", "HEAD").stdout.strip()
    changed = git("diff", "--quiet", "HEAD", "--", "src", "benchmarks/*.py").returncode == 1
    return f"{found}{'+' if changed else ''}" if found else "unknown"


def _line(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _flat(text: str) -> str:
    """Indented JSON with the innermost lists and mappings each on one line."""
    return re.sub(r"([\[{])\n\s+([^\[\]{}]*?)\n\s+([\]}])", lambda m: _joined(*m.groups()), text)


def _joined(begin: str, inner: str, end: str) -> str:
    return begin + re.sub(r"\n\s+", " ", inner) + end
