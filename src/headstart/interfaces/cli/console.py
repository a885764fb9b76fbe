"""What the commands read and print in the same way: results on stdout, warnings on stderr, output folders."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from headstart.errors import SettingError, printable

if TYPE_CHECKING:
    from headstart.data.dataset import Dataset
    from headstart.records import InputSpec, Source
    from headstart.report.records import Report
    from headstart.sources.features import Extraction
    from headstart.system.cache import Cache
    from headstart.system.progress import Progress
    from headstart.system.runners import Runner

__all__ = [
    "RESULT",
    "check_output_folder",
    "chosen_cache",
    "chosen_layer",
    "command_line",
    "extraction",
    "fitting",
    "load_dataset",
    "load_others",
    "opened",
    "print_json",
    "print_result",
    "save_result",
    "source_and_data",
    "working",
]

RESULT = "result.json"


def check_output_folder(folder: Path, *markers: str) -> None:
    """Raise if the folder holds anything but an older output, before anything is computed.

    An older output holds one of the markers, which are file names; the error names the last one.
    """
    from headstart.system.files import check_place

    present = [name for name in markers if (folder / name).is_file()]
    check_place(folder, marker=(present or markers)[-1])


def chosen_cache(no_cache: bool) -> Cache:
    """The user's cache, or none."""
    from headstart.system.cache import NullCache, default_cache

    return NullCache() if no_cache else default_cache()


def extraction(
    no_cache: bool, runtime: str, precision: str | None, progress: Progress, runner: Runner
) -> Extraction:
    """How features are computed."""
    from headstart.sources.features import Extraction

    return Extraction(chosen_cache(no_cache), runtime, precision, progress, runner)


@contextmanager
def working(runner: str | None) -> Iterator[tuple[Progress, Runner]]:
    """Progress on the terminal, and where the work runs, by the name of a runner."""
    from headstart.data.reading import reading
    from headstart.system.progress import terminal_progress
    from headstart.system.runners import runner_named

    with (
        terminal_progress() as progress,
        runner_named(runner, progress) as workers,
        reading(progress, runner=workers),
    ):
        yield progress, workers


def chosen_layer(layer: str | None, tap: str | None) -> str | None:
    """The layer, from its option or the option's older name."""
    if layer is not None and tap is not None:
        raise SettingError("--layer and --tap are the same option, expected one of them; leave out --tap")
    return tap if layer is None else layer


def command_line() -> str:
    """The command as the user could type it again in the same folder; it goes into reports and cards.

    Of a path outside that folder only the last name is kept.
    """
    from headstart.report.paths import without_folders

    return shlex.join(["headstart", *map(without_folders, sys.argv[1:])])


def load_dataset(
    data: str, *, strict: bool, progress: Progress | None = None, inputs: Sequence[InputSpec] = ()
) -> Dataset:
    """A dataset by its name, its files prepared for these inputs; a warning on stderr names what was skipped."""
    from headstart.data.readers.load import load
    from headstart.data.reading import reading
    from headstart.system.progress import SILENT

    with reading(progress or SILENT, *inputs):
        return _told(load(data, strict=strict))


def load_others(
    data: str | None, *, strict: bool, progress: Progress | None = None, inputs: Sequence[InputSpec] = ()
) -> Dataset | None:
    """As `load_dataset`, images without labels; None if none are given."""
    from headstart.data.readers.unlabelled import load_unlabelled
    from headstart.data.reading import reading
    from headstart.system.progress import SILENT

    if data is None:
        return None
    with reading(progress or SILENT, *inputs):
        return _told(load_unlabelled(data, strict=strict))


def _told(dataset: Dataset) -> Dataset:
    if dataset.skipped:
        path, reason = dataset.skipped[0]
        more = f" and {len(dataset.skipped) - 1} more" if len(dataset.skipped) > 1 else ""
        print(
            f"headstart: {len(dataset.skipped)} of "
            f"{len(dataset) + len(dataset.skipped)} files skipped: {printable(path)} ({printable(reason)}){more}; "
            "--strict makes this an error",
            file=sys.stderr,
        )
    return dataset


def source_and_data(names: Sequence[str]) -> tuple[str | None, str]:
    """The source, None where it is left out, and the dataset; the order is checked."""
    from headstart.sources.order import check_order, is_source_only

    if len(names) > 2:
        raise typer.BadParameter(
            f"{len(names)} names are given, expected a source and a dataset, or a dataset"
        )
    if len(names) == 1:
        if is_source_only(names[0]):
            raise typer.BadParameter(
                f"{names[0]!r} is a source, expected a dataset after it; name your images"
            )
        return None, names[0]
    check_order(names[0], names[1])
    return names[0], names[1]


def fitting(
    name: str | None,
    dataset: Dataset,
    seed: int = 0,
    size_px: int | None = None,
    policy: str | None = None,
    ahead: Source | None = None,
) -> Source:
    """The source that is named, else the one that fits the images, with the policy that fits; stderr says which.

    ``ahead`` is the source as it was opened for files.
    """
    from headstart.sources.fitting import fitting_source, with_fitting_policy
    from headstart.sources.registry import open_source

    if name is None:
        found = fitting_source(dataset)
        print(f"headstart: {found.sentence}", file=sys.stderr)
        name = found.name
    is_open = ahead is not None and dataset.images.image_shape is None
    source = ahead if ahead is not None and is_open else open_source(name, dataset, seed, size_px, policy)
    if policy is not None:
        return source
    fits = with_fitting_policy(source, dataset)
    if fits is not source:
        print(
            f"headstart: policy {fits.input.policy}, since the images are drawings of another size than "
            f"{printable(name)} takes; --policy {source.input.policy} turns it off",
            file=sys.stderr,
        )
    return fits


def opened(
    name: str | None,
    data: str,
    progress: Progress,
    *,
    strict: bool,
    seed: int = 0,
    size_px: int | None = None,
    policy: str | None = None,
) -> tuple[Source, Dataset]:
    """A source as `fitting` gives it, and a dataset, each file of which is read once for both.

    For features, the source that they were computed by.
    """
    from headstart.sources.embedded import embedded_source
    from headstart.sources.fitting import inputs_ahead, opened_ahead

    ahead = opened_ahead(name, seed, size_px, policy)
    progress.step(f"read {data}", 0, 0)
    inputs = inputs_ahead(ahead, name, size_px, policy)
    dataset = load_dataset(data, strict=strict, progress=progress, inputs=inputs)
    progress.step("open the source", 0, 0)
    known = embedded_source(dataset, name, size_px, policy)
    if known is not None:
        if name is None:
            print(f"headstart: source {printable(known.name)}, which computed the features", file=sys.stderr)
        return known, dataset
    return fitting(name, dataset, seed, size_px, policy, ahead), dataset


def print_json(value: Any) -> None:
    """Print one JSON object."""
    from headstart.report.json import to_json

    print(to_json(value))


def print_result(result: Report) -> None:
    """Print table, verdict, remarks and problems of the images."""
    from headstart.interfaces.cli.tables import result_table

    print(result_table(result))
    print(f"\n{result.verdict}")
    for remark in dict.fromkeys((*result.remarks, *result.findings)):
        print(f"- {remark}")


def save_result(result: Report, folder: Path, json: bool, **more: Any) -> None:
    """Write ``result.json``, ``report.html`` and ``card.md``, and print the result (JSON with ``more``)."""
    from headstart.report.card import summary_card
    from headstart.report.json import to_json
    from headstart.report.page import render
    from headstart.report.paths import shareable
    from headstart.system.files import write_atomic

    write_atomic(folder / "card.md", summary_card(result))
    write_atomic(folder / RESULT, to_json(shareable(result)) + "\n")
    report = write_atomic(folder / "report.html", render(result))
    if json:
        print_json({"report": str(report), **more, "result": result})
        return
    print_result(result)
    print(f"\nReport: {report}")
