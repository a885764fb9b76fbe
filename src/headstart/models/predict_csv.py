"""Predict a large folder into a CSV file in flat memory; an interrupted run can be continued.

While it runs, rows are in FILE.part and a description of the run in FILE.part.json.
"""

from __future__ import annotations

import csv
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, BinaryIO

from headstart.data.images.decode import EXTENSIONS
from headstart.data.readers.image_files import OtherFiles, count_images, find_images
from headstart.errors import SettingError
from headstart.models.answer_sets import AnswerSets
from headstart.models.model import Model
from headstart.models.predict import (
    BATCH,
    ImagePrediction,
    UnreadableImage,
    predict_images,
)
from headstart.models.predict_job import PredictRequest, check_job, columns, header_of, job_of, width_of
from headstart.system.files import write_atomic, writing
from headstart.system.lock import try_lock
from headstart.system.progress import SILENT, Progress

__all__ = [
    "CsvSummary",
    "PredictRequest",
    "check_file",
    "columns",
    "predict_to_file",
    "predict_to_stream",
    "row",
]

_FORMAT = "headstart-predict"
_INTERVAL_S = 0.1
_STDOUT = "standard output"
_TO_QUOTE = re.compile('[",\r\n]')


@dataclass(frozen=True)
class CsvSummary:
    """What was written: ``csv`` is the file, or ``-`` for stdout.

    Rows in all, rows with an error, rows kept from an interrupted run, the seconds this run took, and the files
    in folders that are not images; ``remark`` says why all answer sets hold all classes.
    """

    csv: str
    n_images: int
    n_unread: int
    n_kept: int
    seconds: float
    others: OtherFiles
    remark: str | None = None


@dataclass
class _Tally:
    """Rows so far, rows with an error, and rows kept from an interrupted run."""

    n_rows: int = 0
    n_unread: int = 0
    n_kept: int = 0


def predict_to_stream(request: PredictRequest, stream: BinaryIO, progress: Progress = SILENT) -> CsvSummary:
    """Write a row per image to a stream, as UTF-8, flushed batch by batch; a name in no encoding keeps its bytes."""
    (model, rule), begun = request.open(), perf_counter()
    total = count_images(request.patterns)
    tally, others = _Tally(), OtherFiles()
    paths = find_images(request.patterns, others)
    with writing(_STDOUT):
        stream.write(_encoded(header_of(model, request)))
    _write_rows(model, request, paths, stream, (tally, _Reporter(progress, total)), rule)
    with writing(_STDOUT):
        stream.flush()
    return CsvSummary("-", tally.n_rows, tally.n_unread, 0, perf_counter() - begun, others, _remark(rule))


def predict_to_file(
    request: PredictRequest, file: str | os.PathLike[str], progress: Progress = SILENT
) -> CsvSummary:
    """Write a row per image to a file, which gets its name when it is complete.

    Rows are appended to ``FILE.part``. Where one of the same model, paths and options exists, its complete
    batches are kept as far as the list of images is unchanged; these images are not read again. The file is the
    same to the byte, however often it was interrupted. SettingError if another run is writing it, or if
    ``FILE.part`` is of another run.
    """
    target, begun = check_file(file), perf_counter()
    model, rule = request.open()
    total = count_images(request.patterns)
    part = target.with_name(f"{target.name}.part")
    job_file = part.with_name(f"{part.name}.json")
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    job = job_of(model, request)
    tally, others = _Tally(), OtherFiles()
    paths = find_images(request.patterns, others)
    with _part_file(part, job_file, job) as rows:
        paths = _keep_complete_batches(rows, job["columns"], paths, tally, progress)
        try:
            _write_rows(model, request, paths, rows, (tally, _Reporter(progress, total)), rule)
        except KeyboardInterrupt:
            progress.remark(
                f"headstart: {tally.n_rows:,} of {max(total, tally.n_rows):,} images are in {part}; "
                "the same command continues from there"
            )
            raise
        with writing(part):
            os.fsync(rows.fileno())
        if os.name == "nt":  # which cannot rename open files; elsewhere the lock is held until the rename
            rows.close()
        part.replace(target)
        job_file.unlink(missing_ok=True)
    return CsvSummary(
        str(file), tally.n_rows, tally.n_unread, tally.n_kept, perf_counter() - begun, others, _remark(rule)
    )


def check_file(file: str | os.PathLike[str]) -> Path:
    """Check that a table may be written here; SettingError for an image, a folder or an option."""
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
        "use --csv out.csv"
    )


def row(image: ImagePrediction | UnreadableImage, n_ranked: int, *, sets: bool = False) -> list[str]:
    """The cells of one image under `columns`; six digits, on which all machines agree; answer sets as JSON lists."""
    if isinstance(image, UnreadableImage):
        return [image.path, "", *[""] * (2 * n_ranked + sets), "", image.reason]
    ranked = [
        cell
        for name, value in zip(image.classes, image.probabilities, strict=True)
        for cell in (name, f"{value:.6g}")
    ]
    answers = [json.dumps(image.answer_set, ensure_ascii=False)] if sets else []
    novelty = "" if image.novelty is None else f"{image.novelty:.6g}"
    return [image.path, image.name, *ranked, *answers, novelty, ""]


def _remark(rule: AnswerSets | None) -> str | None:
    return None if rule is None else rule.remark


def _encoded(cells: Iterable[str]) -> bytes:
    """One line, quoted by RFC 4180; csv.writer does not quote a bare carriage return, which readers refuse."""
    quoted = ('"' + cell.replace('"', '""') + '"' if _TO_QUOTE.search(cell) else cell for cell in cells)
    return (",".join(quoted) + "\n").encode("utf-8", sys.getfilesystemencodeerrors())


class _Reporter:
    """Reports progress at most ten times a second."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress, self._total, self._last = progress, total, 0.0

    def report(self, done: int) -> None:
        now = perf_counter()
        if now - self._last > _INTERVAL_S or done >= self._total:
            self._progress.step("predict", done, max(done, self._total))
            self._last = now


def _write_rows(
    model: Model,
    request: PredictRequest,
    paths: Iterable[str],
    stream: BinaryIO,
    counts: tuple[_Tally, _Reporter],
    rule: AnswerSets | None,
) -> None:
    """Predict the remaining images and write each batch to the file before the next begins."""
    width, sets, (tally, reporter) = width_of(model, request), rule is not None, counts
    if tally.n_rows:
        reporter.report(tally.n_rows)
    stream_of_batches = predict_images(
        model, paths, top=request.top, runtime_name=request.runtime_name, rule=rule
    )
    for batch in stream_of_batches:
        rows = b"".join(_encoded(row(one, width, sets=sets)) for one in batch)
        with writing(str(getattr(stream, "name", _STDOUT))):
            stream.write(rows)
            stream.flush()
        tally.n_rows += len(batch)
        tally.n_unread += sum(isinstance(one, UnreadableImage) for one in batch)
        reporter.report(tally.n_rows)


def _opened(part: Path) -> BinaryIO:
    with writing(part):
        return part.open("a+b")


@contextmanager
def _part_file(part: Path, job_file: Path, job: dict[str, Any]) -> Iterator[Any]:
    """The part file, open to read and append, and locked against a second run."""
    with _opened(part) as rows:
        if try_lock(rows) is False:
            raise SettingError(
                f"{str(part)!r} is being written by another run, expected one run per file; "
                "wait for it or name another"
            )
        if rows.seek(0, os.SEEK_END):
            check_job(part, job_file, job)
        else:
            write_atomic(job_file, json.dumps(job, indent=2) + "\n")
        yield rows


def _keep_complete_batches(
    rows: BinaryIO, header: Sequence[str], paths: Iterator[str], tally: _Tally, progress: Progress
) -> Iterator[str]:
    """Keep the complete batches of the first images, cut the rest, and return the remaining images.

    Only complete batches: which images share a batch must not depend on where a run was interrupted.
    """
    rows.seek(0)
    found = _whole_rows(rows, len(header))
    cells, end = next(found, ([], 0))
    if cells != list(header):
        rows.truncate(0)
        rows.write(_encoded(header))
        return paths
    waiting: list[str] = []  # images of the batch being compared
    keep, n_found, n_unread_found = end, 0, 0
    for cells, end in found:
        path = next(paths, None)
        if path is None:
            break
        waiting.append(path)
        if cells[0] != path:
            break
        n_found, n_unread_found = n_found + 1, n_unread_found + bool(cells[-1])
        if len(waiting) == BATCH:
            keep, waiting = end, []
            tally.n_rows, tally.n_unread = n_found, n_unread_found
    rows.truncate(keep)
    rows.seek(0, os.SEEK_END)
    tally.n_kept = tally.n_rows
    if tally.n_kept:
        progress.remark(f"headstart: continuing after {tally.n_kept:,} images of an interrupted run")
    return _chained(waiting, paths)


def _chained(first: Sequence[str], then: Iterator[str]) -> Iterator[str]:
    yield from first
    yield from then


def _whole_rows(file: BinaryIO, width: int) -> Iterator[tuple[list[str], int]]:
    """Rows from the start, each with the position of its end, up to the first incomplete one."""
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
