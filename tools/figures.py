"""Figures of README and docs: run what gives them, write them into the documents, check that none is stale.

    python tools/figures.py run [NAME ...] [--group fast|slow]   run commands, write results, render
    python tools/figures.py render                               rewrite the marked blocks from the results
    python tools/figures.py check [--strict]                     one line for every fault, status 1 if any

``benchmarks/figures.toml`` says which command gives which figure and on which code it depends. A result is
stale when that code is not the code it was made with: see digests.py. A block that quotes a stale result ends
in a sentence that says so, and a block without it is a fault; with --strict every stale result is one.
"""

from __future__ import annotations

import argparse
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from blocks import blocks_in, outside_blocks, rendered, replaced
from digests import Part, code_digest, defines
from results import Header, folder_of, header_of, read_result, run_figure, stamp, stamped

ROOT = Path(__file__).parent.parent
# a number that somebody measured: a share in per cent, a difference, a ratio, a duration
_MEASURED = re.compile(r"\d[\d.,]*(?: to \d[\d.,]*)?\s?(?:%|points|times as|s\b|min\b|ms\b|images/s)")
_NOT_READ = re.compile(r"```.*?```|`[^`\n]*`|\]\([^)]*\)|<!--.*?-->", flags=re.DOTALL)


@dataclass(frozen=True)
class Figure:
    """One entry of figures.toml.

    ``part`` of the JSON is the result, and of it ``keep`` is kept; empty, all of it. ``text`` says that what
    the command prints is kept, too. ``images`` show the figure.
    """

    name: str
    group: str
    commands: tuple[str, ...]
    depends: tuple[str, ...]
    blocks: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    part: str = ""
    text: bool = False


@dataclass(frozen=True)
class Book:
    """All figures of a checkout, its documents and its code."""

    root: Path

    @cached_property
    def settings(self) -> Mapping[str, Any]:
        """figures.toml as it stands."""
        return tomllib.loads((self.root / "benchmarks/figures.toml").read_text(encoding="utf-8"))

    @cached_property
    def figures(self) -> Mapping[str, Figure]:
        """Figures by name, in the order of the file."""
        keep = self.settings.get("keep", {})
        found = {}
        for name, entry in self.settings["figures"].items():
            lists = {key: tuple(value) for key, value in entry.items() if isinstance(value, list)}
            kept = tuple(path for one in lists.pop("keep", ()) for path in keep.get(one, [one]))
            plain = {key: entry[key] for key in ("part", "text") if key in entry}
            found[name] = Figure(name, entry["group"], keep=kept, **plain, **lists)
        return found

    @cached_property
    def documents(self) -> tuple[Path, ...]:
        """README and everything in docs."""
        return (self.root / "README.md", *sorted((self.root / "docs").rglob("*.md")))

    @property
    def templates(self) -> Path:
        """Folder of the blocks' templates."""
        return self.root / "benchmarks/blocks"

    def place(self, name: str, suffix: str = ".json") -> Path:
        """Where the result of a figure lies."""
        return self.root / "benchmarks/results" / f"{name}{suffix}"

    def parts(self, pattern: str) -> list[Part]:
        """Files and definitions of a group of ``[code]``, of a glob, or of ``file.py:Name``."""
        if pattern in self.settings["code"]:
            return [part for one in self.settings["code"][pattern] for part in self.parts(one)]
        glob, _, name = pattern.partition(":")
        found = (path for path in self.root.glob(glob) if path.is_file())
        return [(path, name) for path in found if not name or defines(path, name)]

    def digest(self, figure: Figure) -> str:
        """Of the code that a figure depends on at present, and of its commands."""
        parts = {part for pattern in figure.depends for part in self.parts(pattern)}
        return code_digest(parts, *figure.commands)

    def content(self, block: str) -> str:
        """The text of a block by the present results."""
        quoted = {
            name: read_result(self.place(name)) for name, one in self.figures.items() if block in one.blocks
        }
        return rendered(self.templates, block, quoted) + self._dated(quoted)

    def _dated(self, names: Iterable[str]) -> str:
        """A paragraph that says when results were measured, if the code has changed since then."""
        stale = [name for name in names if self.stale(self.figures[name])]
        dates = sorted({header_of(self.place(name)).date for name in stale})
        return f"\n*Measured on {' and '.join(dates)}, before later changes to the code.*\n" if stale else ""

    def stale(self, figure: Figure) -> list[Path]:
        """Files of a result that other code, or another command, has made."""
        files = [
            self.place(figure.name, suffix) for suffix in ((".json", ".txt") if figure.text else (".json",))
        ]
        return [path for path in files if header_of(path).code != self.digest(figure)]

    def shown(self, path: Path) -> str:
        """A path as messages name it."""
        return path.relative_to(self.root).as_posix()


# ---- check ----


def faults(book: Book) -> Iterator[str]:
    """Everything that keeps the documents from printing what the code gives, a sentence each."""
    yield from _faults_of_settings(book)
    for figure in book.figures.values():
        yield from _faults_of_result(book, figure)
    for path in book.documents:
        yield from _faults_of_document(book, path)


def _faults_of_settings(book: Book) -> Iterator[str]:
    """Code in no group, globs and templates of nothing, results of no figure."""
    code, settings = book.settings["code"], "benchmarks/figures.toml"
    depended = {pattern for figure in book.figures.values() for pattern in figure.depends}
    patterns = {one for group in code.values() for one in group} | (depended - set(code))
    for pattern in sorted(patterns):
        if not book.parts(pattern):
            yield f"{settings}: {pattern!r} matches nothing, expected code that decides figures; correct it"
    known = {path for group in code for path, name in book.parts(group) if not name}
    for path in sorted({path for path, _ in book.parts("src/**/*.py")} - known):
        yield (
            f"{settings}: {book.shown(path)} is in no group of [code], expected one; add it, "
            "to no_figures if it decides no number"
        )
    quoted = {block for figure in book.figures.values() for block in figure.blocks}
    for path in sorted(book.templates.glob("*.md.j2")):
        if path.name.removesuffix(".md.j2") not in quoted:
            yield f"{book.shown(path)} is in the blocks of no figure, expected one; add it to {settings}"
    dated = book.settings["documents"].get("unquoted", ())
    for path in sorted(book.place("x").parent.iterdir()):
        if path.stem not in book.figures and path.stem not in dated:
            yield f"{book.shown(path)} belongs to no figure, expected an entry in {settings}; add one"


def _faults_of_result(book: Book, figure: Figure) -> Iterator[str]:
    """A result that is not there or was made by other code; images of another run than the result."""
    present, again = book.digest(figure), f"run: python tools/figures.py run {figure.name}"
    try:
        stale = book.stale(figure)
        made = header_of(book.place(figure.name)).code
    except FileNotFoundError as error:
        missing = book.shown(Path(error.filename))
        yield f"{missing} is not there, expected the result of figure {figure.name}; {again}"
        return
    except ValueError as error:
        yield f"{error}; {again}"
        return
    if stale:
        names = " and ".join(map(book.shown, stale))
        yield f"{names}: stale, expected results of the present code, {present[:12]}; {again}"
    for name in figure.images:
        path = book.root / name
        if not path.exists() or stamped(path) != made:
            yield (
                f"{name}: not a picture of the present result, {made[:12]}, expected one; "
                f"{again}, then: python tools/screenshots.py {path.stem}"
            )


def _faults_of_document(book: Book, path: Path) -> Iterator[str]:
    """Blocks that are not what their results say, and measured numbers outside blocks."""
    text, name = path.read_text(encoding="utf-8"), book.shown(path)
    try:
        found = list(blocks_in(text))
    except ValueError as error:
        yield f"{name}: {error}; correct them"
        return
    for block in found:
        what = f"{name}:{block.line}: block {block.name}"
        try:
            expected = book.content(block.name)
        except (ValueError, OSError) as error:
            yield f"{what} {error}"
            continue
        if block.text != expected:
            yield f"{what} is not what its results say, expected that; run: python tools/figures.py render"
    if any(path in book.root.glob(pattern) for pattern in book.settings["documents"]["numbers_in_blocks"]):
        yield from _numbers_outside(book, text, name)


def _numbers_outside(book: Book, text: str, name: str) -> Iterator[str]:
    """Measured numbers in prose that no command rewrites."""
    allowed = book.settings["documents"]["not_measured"]
    patterns = [_NOT_READ, *(re.compile(r"\s+".join(map(re.escape, one.split()))) for one in allowed)]
    text = outside_blocks(text)
    for pattern in patterns:
        text = pattern.sub(lambda m: re.sub(r"[^\n]", " ", m[0]), text)
    for number in _MEASURED.finditer(text):
        line = text.count("\n", 0, number.start()) + 1
        yield (
            f"{name}:{line}: {' '.join(number[0].split())!r} is outside the figures' blocks, expected inside "
            "one; move it there, or list it as not_measured in benchmarks/figures.toml"
        )


# ---- run and render ----


def render(book: Book) -> list[str]:
    """Rewrite the blocks of all documents; a sentence for each that cannot be written and stays as it was."""
    failed = []
    for path in book.documents:
        text, name = path.read_text(encoding="utf-8"), book.shown(path)
        try:
            new = text
            for block in blocks_in(text):
                try:
                    new = replaced(new, block.name, book.content(block.name))
                except (ValueError, OSError) as error:
                    failed.append(f"{name}: block {block.name} {error}")
        except ValueError as error:
            failed.append(f"{name}: {error}; correct them")
            continue
        if new != text:
            path.write_text(new, encoding="utf-8")
            print(f"wrote {name}")
    return failed


def run(book: Book, names: Sequence[str], group: str) -> list[str]:
    """Run figures by name, or all of a group; a sentence for each that failed."""
    unknown = [name for name in names if name not in book.figures]
    if unknown:
        sys.exit(f"figure {unknown[0]!r} is unknown, expected one of {', '.join(book.figures)}")
    failed = []
    for figure in book.figures.values():
        if figure.name not in names and (names or figure.group != group):
            continue
        print(f"figure {figure.name}", file=sys.stderr, flush=True)
        code = book.digest(figure)
        try:
            made = run_figure(figure.commands, book.root, figure.name, keep=figure.keep, part=figure.part)
        except (OSError, ValueError, LookupError) as error:
            failed.append(f"figure {figure.name}: {error}")
            continue
        fresh = Book(book.root)
        if fresh.digest(fresh.figures[figure.name]) != code:
            failed.append(
                f"figure {figure.name}: its code changed while it ran, expected one state; run it again"
            )
            continue
        made.write(book.place(figure.name), Header(code=code, **made.about), text=figure.text)
        (folder_of(book.root, figure.name) / "code").write_text(code, encoding="utf-8")
        for name in figure.images:
            if any(name in command for command in figure.commands):  # drawn by the command itself
                stamp(book.root / name, code)
    return failed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", choices=("run", "render", "check"))
    parser.add_argument("names", nargs="*", help="figures to run")
    parser.add_argument(
        "--group", choices=("fast", "slow"), default="fast", help="to run where no name is given"
    )
    parser.add_argument("--strict", action="store_true", help="fail for stale results, too")
    asked = parser.parse_args()
    book = Book(ROOT)
    if asked.what == "check":
        found = list(faults(book))
        print("\n".join(found), file=sys.stderr)
        sys.exit(1 if [one for one in found if asked.strict or ": stale, " not in one] else 0)
    failed = run(book, asked.names, asked.group) if asked.what == "run" else []
    failed += render(book)
    if failed:
        sys.exit("\n".join(failed))


if __name__ == "__main__":
    main()
