"""Predict many images into a Parquet file, part after part, here or on a cluster; an interrupted run continues.

While it runs, finished parts are in FILE.part, one file each, with a description of the run.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

from headstart.data.contents.protocol import Contents
from headstart.data.readers.image_files import OtherFiles
from headstart.data.readers.inputs import image_parts
from headstart.errors import SettingError
from headstart.models.answer_sets import AnswerSets
from headstart.models.model import Model
from headstart.models.predict import BATCH, ImagePrediction, predict_inputs
from headstart.models.predict_job import PredictRequest, check_job, job_of
from headstart.system.files import atomic_file, write_atomic, writing
from headstart.system.lock import try_lock
from headstart.system.optional import require
from headstart.system.progress import SILENT, Progress, throttled
from headstart.system.runners import LOCAL, Runner

__all__ = ["ParquetSummary", "check_parquet", "predict_to_parquet"]

_PART = 32 * BATCH
"""Images of a part: whole batches, so that a row does not depend on where a run was interrupted."""
_KEY = b"headstart"
_JOB = "job.json"


@dataclass(frozen=True)
class ParquetSummary:
    """What was written: rows in all, rows with an error, rows kept from an interrupted run, and seconds.

    ``others`` are files that are not images; ``remark`` says why all answer sets hold all classes.
    """

    file: str
    n_images: int
    n_unread: int
    n_kept: int
    seconds: float
    others: OtherFiles
    remark: str | None = None


def check_parquet(file: str | os.PathLike[str]) -> Path:
    """Check that a table may be written here; SettingError for another ending, or a folder."""
    target = Path(file)
    if target.suffix.lower() == ".parquet" and not target.is_dir():
        return target
    what = "is a folder" if target.is_dir() else "has another ending"
    raise SettingError(
        f"output {str(file)!r} {what}, expected a file to write such as answers.parquet; rename it, or use "
        "--csv answers.csv"
    )


def predict_to_parquet(
    request: PredictRequest,
    file: str | os.PathLike[str],
    *,
    runner: Runner = LOCAL,
    progress: Progress = SILENT,
) -> ParquetSummary:
    """Write a row per image to a Parquet file, which gets its name when it is complete.

    Parameters
    ----------
    request : PredictRequest
        ``patterns`` may also be shards of tar archives or tables with images, and addresses in a bucket.
    file : path
        Ends in ``.parquet``.
    runner : Runner, optional
        Where images are read and predicted.
    progress : Progress, optional
        Gets the number of images done.

    Returns
    -------
    ParquetSummary
        The file has one row per image, in order, however often the run was interrupted and wherever it ran: ``path``,
        ``name``, ``classes`` and ``probabilities`` (lists, descending), ``answer_set`` where one was asked for,
        ``novelty`` and ``error``, which is null where the image was read.

    Raises
    ------
    SettingError
        If another run is writing the file, or ``FILE.part`` is of another run.
    MissingDataError, FetchError
        If there is no such input, or the network fails; what is done is kept.
    """
    begun, target = perf_counter(), check_parquet(file)
    require("pyarrow.parquet", extra="tables", for_=f"file {target.name!r}")
    model, rule = request.open()
    others, said = OtherFiles(), throttled(progress)
    with _unfinished(target, job_of(model, request)) as folder:
        parts = _Parts(folder, rule is not None)
        missing = parts.missing(image_parts(request.patterns, others, _PART))
        if parts.n_kept:
            progress.remark(f"headstart: continuing with {parts.n_kept:,} images of an interrupted run")
        for number, rows in runner.map(_Predictor(model, request, rule), missing):
            parts.write(parts.numbers[number], rows)
            said("predict", parts.n_rows, 0)
        parts.join(target)
    remark = None if rule is None else rule.remark
    seconds = perf_counter() - begun
    return ParquetSummary(str(file), parts.n_rows, parts.n_unread, parts.n_kept, seconds, others, remark)


@dataclass(frozen=True)
class _Predictor:
    """What a worker needs; calling it returns what predicts a part."""

    model: Model
    request: PredictRequest
    rule: AnswerSets | None

    def __call__(self) -> Callable[[Contents], dict[str, list[Any]]]:
        return self._columns

    def _columns(self, part: Contents) -> dict[str, list[Any]]:
        """The columns of a part, a value for each image."""
        inputs = ((part.name(place), _reader(part, place)) for place in range(len(part)))
        found = predict_inputs(
            self.model,
            inputs,
            top=self.request.top,
            runtime_name=self.request.runtime_name,
            rule=self.rule,
        )
        columns: dict[str, list[Any]] = {name: [] for name in _NAMES}
        for one in (image for batch in found for image in batch):
            is_read = isinstance(one, ImagePrediction)
            for name, values in columns.items():
                values.append(getattr(one, name, None))
            columns["error"][-1] = None if is_read else one.reason  # type: ignore[union-attr]
        return columns


_NAMES = ("path", "name", "classes", "probabilities", "answer_set", "novelty", "error")


def _reader(part: Contents, place: int) -> Callable[[], bytes]:
    return lambda: part.read(place)


@dataclass
class _Parts:
    """Parts of the result, each in a file whose metadata says which images it is about."""

    folder: Path
    has_sets: bool
    n_rows: int = 0
    n_unread: int = 0
    n_kept: int = 0
    n_parts: int = 0
    numbers: list[int] = field(default_factory=list)  # of the parts that were missing
    digests: dict[int, str] = field(default_factory=dict)
    sizes: dict[int, int] = field(default_factory=dict)

    def missing(self, parts: Iterator[Contents]) -> Iterator[Contents]:
        """The parts that no interrupted run has left."""
        for number, part in enumerate(parts):
            self.n_parts = number + 1
            names = "\0".join(part.name(place) for place in range(len(part)))
            digest = hashlib.sha256(names.encode("utf-8", "surrogateescape")).hexdigest()
            if not self._keep(number, digest, len(part)):
                self.numbers.append(number)
                self.digests[number], self.sizes[number] = digest, len(part)
                yield part

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:08}.parquet"

    def _keep(self, number: int, digest: str, n_images: int) -> bool:
        """Count a part that is there and is of these images."""
        from pyarrow import ArrowInvalid, parquet

        try:
            note = parquet.read_metadata(self._path(number))
            known = json.loads((note.metadata or {}).get(_KEY, b"{}"))
        except (OSError, ValueError, ArrowInvalid):
            return False
        if known.get("images") != digest or note.num_rows != n_images:
            return False
        self.n_rows += n_images
        self.n_kept += n_images
        self.n_unread += known["n_unread"]
        return True

    def write(self, number: int, columns: Mapping[str, list[Any]]) -> None:
        """Keep a part."""
        from pyarrow import parquet

        n_images, expected = len(columns["path"]), self.sizes.pop(number)
        assert n_images == expected, f"{n_images} rows for {expected} images"
        n_unread = sum(one is not None for one in columns["error"])
        note = json.dumps({"images": self.digests.pop(number), "n_unread": n_unread})
        table = _table(columns, self.has_sets).replace_schema_metadata({_KEY: note})
        path = self._path(number)
        with writing(path), atomic_file(path) as draft:
            parquet.write_table(table, draft)
        self.n_rows += n_images
        self.n_unread += n_unread

    def join(self, target: Path) -> None:
        """One file of all parts, in order; they are removed then."""
        from pyarrow import parquet

        with writing(target), atomic_file(target) as draft:
            first = _table({name: [] for name in _NAMES}, self.has_sets)
            with parquet.ParquetWriter(draft, first.schema) as writer:
                for number in range(self.n_parts):
                    writer.write_table(parquet.read_table(self._path(number)).replace_schema_metadata(None))
        shutil.rmtree(self.folder, ignore_errors=True)


def _table(columns: Mapping[str, list[Any]], has_sets: bool) -> Any:
    import pyarrow as pa

    texts, numbers = pa.list_(pa.string()), pa.list_(pa.float32())
    kinds = dict(
        zip(_NAMES, (pa.string(), pa.string(), texts, numbers, texts, pa.float32(), pa.string()), strict=True)
    )
    if not has_sets:
        del kinds["answer_set"]
    values = {
        **columns,
        "path": [one.encode("utf-8", "backslashreplace").decode() for one in columns["path"]],
    }
    return pa.table({name: pa.array(values[name], kind) for name, kind in kinds.items()})


@contextmanager
def _unfinished(target: Path, job: dict[str, Any]) -> Iterator[Path]:
    """The folder of an unfinished file, locked against a second run; SettingError if it is of another run."""
    folder = target.with_name(f"{target.name}.part")
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "lock").open("ab")
    with lock:
        if try_lock(lock) is False:
            raise SettingError(
                f"{str(folder)!r} is being written by another run, expected one run per file; "
                "wait for it or name another"
            )
        described = folder / _JOB
        if described.exists() or any(folder.glob("*.parquet")):
            check_job(folder, described, job)
        else:
            write_atomic(described, json.dumps(job, indent=2) + "\n")
        yield folder
