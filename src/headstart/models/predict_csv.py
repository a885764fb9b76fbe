"""Predict a large folder into a CSV file: in a stream, in flat memory, going on where it was interrupted.

In: a model folder, words and a file. Out: a row per picture, and how many there were. While it runs the
rows are in FILE.part and what they are rows of in FILE.part.json. Must not hold all answers. Called by the
command line.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, BinaryIO

from headstart.data.images.decode import EXTENSIONS
from headstart.errors import SettingError
from headstart.models.model import Model, open_model
from headstart.models.predict import BATCH, Answer, Unread, answer_images, count_images, find_images
from headstart.system.files import write_atomic
from headstart.system.lock import try_lock
from headstart.system.progress import SILENT, Progress

__all__ = ["Asked", "Written", "check_file", "columns", "predict_to_file", "predict_to_stream", "row"]

_FORMAT = "headstart-predict"
_INTERVAL_S = 0.1
_TO_QUOTE = re.compile('[",\r\n]')


@dataclass(frozen=True)
class Asked:
    """What is asked: a model folder, words as for `find_images`, classes per picture, what executes."""

    model: str
    words: tuple[str, ...]
    top: int = 3
    runtime_name: str = "openvino"


@dataclass(frozen=True)
class Written:
    """What was written.

    Attributes
    ----------
    csv : str
        The file, or ``-`` for stdout.
    n_pictures : int
        Rows in it.
    n_unread : int
        Rows that tell of an error.
    n_kept : int
        Rows that an interrupted run had left.
    seconds : float
        What this run took.
    """

    csv: str
    n_pictures: int
    n_unread: int
    n_kept: int
    seconds: float


@dataclass
class _Tally:
    """Rows so far, those with an error, and those of an earlier run."""

    n_rows: int = 0
    n_unread: int = 0
    n_kept: int = 0


def predict_to_stream(asked: Asked, stream: BinaryIO, progress: Progress = SILENT) -> Written:
    """Write a row per picture to a stream, flushed batch by batch.

    Parameters
    ----------
    asked : Asked
        Model and pictures.
    stream : binary file
        Gets UTF-8; a name in no encoding keeps its bytes.
    progress : Progress, optional
        Told about pictures done.

    Returns
    -------
    Written

    Raises
    ------
    ModelError, MissingDataError, SettingError
        As `headstart.models.predict.predict_files` does, before anything is written.
    """
    model, begun = open_model(asked.model), perf_counter()
    total = count_images(asked.words)
    tally = _Tally()
    stream.write(_encoded(columns(_width(model, asked))))
    _pour(model, asked, find_images(asked.words), stream, tally, _Clock(progress, total))
    stream.flush()
    return Written("-", tally.n_rows, tally.n_unread, 0, perf_counter() - begun)


def predict_to_file(asked: Asked, file: str | os.PathLike[str], progress: Progress = SILENT) -> Written:
    """Write a row per picture to a file, which appears when all are there.

    Parameters
    ----------
    asked : Asked
        Model and pictures.
    file : path
        Replaced if it exists. Until then rows are appended to ``FILE.part``; where one of the same model,
        pictures and options lies, its whole batches are kept as far as the pictures are still the same,
        and not answered again.
    progress : Progress, optional
        Told about pictures done, what was kept, and what an interruption leaves.

    Returns
    -------
    Written

    Raises
    ------
    SettingError
        If the file is no place for a table, another run is writing it, or ``FILE.part`` is of another
        model, other pictures or options.
    ModelError, MissingDataError
        As `headstart.models.predict.predict_files` does, before anything is written.

    Notes
    -----
    The file is the same to the byte, however often it was interrupted. Rows kept are taken at their word:
    their pictures are not looked at again.
    """
    target, begun = check_file(file), perf_counter()
    model = open_model(asked.model)
    total = count_images(asked.words)
    part = target.with_name(f"{target.name}.part")
    about = part.with_name(f"{part.name}.json")
    target.parent.mkdir(parents=True, exist_ok=True)
    job = _job(model, asked)
    tally, paths = _Tally(), find_images(asked.words)
    with _only_one(part, about, job) as rows:
        paths = _resumed(rows, job["columns"], paths, tally, progress)
        try:
            _pour(model, asked, paths, rows, tally, _Clock(progress, total))
        except KeyboardInterrupt:
            progress.remark(
                f"headstart: {tally.n_rows:,} of {max(total, tally.n_rows):,} pictures are in {part}; "
                "the same command goes on from there"
            )
            raise
        os.fsync(rows.fileno())
        if os.name == "nt":  # which moves no open file; elsewhere it stays held until it has its name
            rows.close()
        part.replace(target)
        about.unlink(missing_ok=True)
    return Written(str(file), tally.n_rows, tally.n_unread, tally.n_kept, perf_counter() - begun)


def check_file(file: str | os.PathLike[str]) -> Path:
    """Find out whether a table may be written here: never over a picture.

    Parameters
    ----------
    file : path
        What the user named.

    Returns
    -------
    Path
        The same.

    Raises
    ------
    SettingError
        If it is a folder, has the name of an image, or looks like an option.
    """
    target = Path(file)
    if target.suffix.lower() in EXTENSIONS:
        what = "has the name of an image"
    elif str(file).startswith("-"):
        what = "looks like an option"
    elif target.is_dir():
        what = "is a folder"
    else:
        return target
    raise SettingError(
        f"csv file {str(file)!r} {what}, expected a file to write such as out.csv, or - for stdout; "
        "say --csv out.csv"
    )


def columns(n_ranked: int) -> list[str]:
    """The header: picture, answer, classes and probabilities by rank, novelty, error.

    Examples
    --------
    >>> columns(1)
    ['path', 'name', 'class_1', 'probability_1', 'novelty', 'error']
    """
    ranked = [f"{what}_{rank}" for rank in range(1, n_ranked + 1) for what in ("class", "probability")]
    return ["path", "name", *ranked, "novelty", "error"]


def row(one: Answer | Unread, n_ranked: int) -> list[str]:
    """The cells of one picture under `columns`; six digits, which is what every machine agrees on.

    Examples
    --------
    >>> row(Answer("a.png", "cat", ("cat",), (0.75,)), 1)
    ['a.png', 'cat', 'cat', '0.75', '', '']
    """
    if isinstance(one, Unread):
        return [one.path, "", *[""] * (2 * n_ranked), "", one.reason]
    ranked = [
        cell
        for name, value in zip(one.classes, one.probabilities, strict=True)
        for cell in (name, f"{value:.6g}")
    ]
    return [one.path, one.name, *ranked, "" if one.novelty is None else f"{one.novelty:.6g}", ""]


def _width(model: Model, asked: Asked) -> int:
    return min(asked.top, len(model.classes))


def _encoded(cells: Iterable[str]) -> bytes:
    """One line. Quoted by RFC 4180 here: csv.writer leaves a bare carriage return, which no reader takes."""
    quoted = ('"' + cell.replace('"', '""') + '"' if _TO_QUOTE.search(cell) else cell for cell in cells)
    return (",".join(quoted) + "\n").encode("utf-8", sys.getfilesystemencodeerrors())


class _Clock:
    """Tells progress at most ten times a second."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress, self._total, self._last = progress, total, 0.0

    def tell(self, done: int) -> None:
        now = perf_counter()
        if now - self._last > _INTERVAL_S or done >= self._total:
            self._progress.step("predict", done, max(done, self._total))
            self._last = now


def _pour(
    model: Model, asked: Asked, paths: Iterable[str], stream: BinaryIO, tally: _Tally, clock: _Clock
) -> None:
    """Answer what is left, a batch at a time; what is written is the system's before the next begins."""
    width = _width(model, asked)
    if tally.n_rows:
        clock.tell(tally.n_rows)
    for batch in answer_images(model, paths, top=asked.top, runtime_name=asked.runtime_name):
        stream.write(b"".join(_encoded(row(one, width)) for one in batch))
        stream.flush()
        tally.n_rows += len(batch)
        tally.n_unread += sum(isinstance(one, Unread) for one in batch)
        clock.tell(tally.n_rows)


def _job(model: Model, asked: Asked) -> dict[str, Any]:
    """What rows are rows of; a run goes on with another's only where all of it but the name is the same."""
    known = [list(model.classes), asdict(model.manifest.input), dict(model.manifest.novelty)]
    digest = hashlib.sha256(model.graph)
    digest.update(json.dumps(known, sort_keys=True).encode())
    return {
        "format": _FORMAT,
        "model": asked.model,
        "fingerprint": digest.hexdigest(),
        "pictures": list(asked.words),
        "folder": os.getcwd(),
        "columns": columns(_width(model, asked)),
        "runtime": asked.runtime_name,
    }


def _check_job(part: Path, about: Path, job: dict[str, Any]) -> None:
    """What lies there is of this model, these pictures and these options."""
    try:
        old = json.loads(about.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        old = None
    if not isinstance(old, dict) or old.get("format") != _FORMAT:
        raise SettingError(
            f"{str(part)!r} has no {about.name} beside it that says what it is of, expected both or neither; "
            "delete it to start anew"
        )
    same = {
        "fingerprint": f"another model ({old.get('model')})",
        "pictures": "other pictures",
        "folder": f"another folder to start in ({old.get('folder')})",
        "columns": "another --top",
        "runtime": "another --runtime",
    }
    other = [said for key, said in same.items() if old.get(key) != job[key]]
    if other:
        raise SettingError(
            f"{str(part)!r} is of an interrupted run with {' and '.join(other)}, expected the same to go on; "
            f"repeat that command, name another file, or delete {part.name} to start anew"
        )


@contextmanager
def _only_one(part: Path, about: Path, job: dict[str, Any]) -> Iterator[Any]:
    """The part file, open to read and append, held against a second run; what it is of lies beside it."""
    with part.open("a+b") as rows:
        if try_lock(rows) is False:
            raise SettingError(
                f"{str(part)!r} is being written by another run, expected a file to itself; "
                "wait for it or name another"
            )
        if rows.seek(0, os.SEEK_END):
            _check_job(part, about, job)
        else:
            write_atomic(about, json.dumps(job, indent=2) + "\n")
        yield rows


def _resumed(
    rows: BinaryIO, header: Sequence[str], paths: Iterator[str], tally: _Tally, progress: Progress
) -> Iterator[str]:
    """Keep the whole batches there that are of the first pictures, cut the rest; give the pictures left.

    Whole batches only: what a picture's batch is made of must not depend on where a run was interrupted.
    """
    rows.seek(0)
    found = _whole_rows(rows, len(header))
    cells, end = next(found, ([], 0))
    if cells != list(header):
        rows.truncate(0)
        rows.write(_encoded(header))
        return paths
    waiting: list[str] = []  # pictures of the batch being compared
    keep, n_found, n_bad = end, 0, 0
    for cells, end in found:
        path = next(paths, None)
        if path is None:
            break
        waiting.append(path)
        if cells[0] != path:
            break
        n_found, n_bad = n_found + 1, n_bad + bool(cells[-1])
        if len(waiting) == BATCH:
            keep, waiting = end, []
            tally.n_rows, tally.n_unread = n_found, n_bad
    rows.truncate(keep)
    rows.seek(0, os.SEEK_END)
    tally.n_kept = tally.n_rows
    if tally.n_kept:
        progress.remark(f"headstart: going on after {tally.n_kept:,} pictures of an interrupted run")
    return _chained(waiting, paths)


def _chained(first: Sequence[str], then: Iterator[str]) -> Iterator[str]:
    yield from first
    yield from then


def _whole_rows(file: BinaryIO, width: int) -> Iterator[tuple[list[str], int]]:
    """Rows from the start with the place where each ends, up to the first that is torn."""
    end, is_whole = 0, True

    def lines() -> Iterator[str]:
        nonlocal end, is_whole
        for line in file:
            end += len(line)
            is_whole = line.endswith(b"\n")
            yield line.decode("utf-8", sys.getfilesystemencodeerrors())

    try:
        for cells in csv.reader(lines(), strict=True):
            if len(cells) != width or not is_whole:
                return
            yield cells, end
    except (csv.Error, UnicodeDecodeError):
        return
