"""Features computed by the workers of a runner, shard by shard; each worker decodes and runs its own images.

Results are those of one process to the bit: shards are made of the same batches, each computed by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from headstart.data.dataset import Dataset
from headstart.data.images.augment import Augmentation, augment
from headstart.data.images.prepare import store_batches
from headstart.data.stores import ImageStore
from headstart.graph.run import compile_graph
from headstart.records import Array, Images, InputSpec
from headstart.system.cache import Cache
from headstart.system.progress import Progress, throttled
from headstart.system.runners import Runner

__all__ = ["READ", "Copy", "Recipe", "augmented", "shard_rows", "worth_sharing"]

READ = 64  # images read at a time
_LARGEST = 1_024  # images of a shard
_SHARDS = 8  # for each worker at least, so that all end at about the same time

Task = tuple[int, ImageStore]
"""Number of the first image in the dataset, and the images of a shard."""
Rows = tuple[Array, ...]
"""Features of the images of a shard, one array for each place."""


class Copy(Protocol):
    """An augmented copy of every image."""

    @property
    def augmentation(self) -> Augmentation:
        """Its operations."""
        ...

    @property
    def seed(self) -> int:
        """Their seed."""
        ...

    @property
    def number(self) -> int:
        """Which of several copies."""
        ...


@dataclass(frozen=True)
class Recipe:
    """What every worker needs: the graph with an output for each place, and how it is run."""

    graph: bytes
    spec: InputSpec
    runtime: str
    precision: str
    batch_size: int
    copy: Copy | None

    def __call__(self) -> Callable[[Task], Rows]:
        """Compile the graph, and return what computes a shard."""
        executable = compile_graph(
            self.graph, runtime=self.runtime, precision=self.precision, batch_size=self.batch_size
        )

        def compute(task: Task) -> Rows:
            first, images = task
            stream = augmented(store_batches(images, self.spec, READ), self.copy, first)
            parts = list(executable.stream(stream))
            return tuple(np.concatenate(values) for values in zip(*parts, strict=True))

        return compute


def augmented(batches: Iterator[Images], copy: Copy | None, first: int) -> Iterator[Images]:
    """Batches of which the first begins with image ``first`` of a dataset, augmented for a copy."""
    for batch in batches:
        indices = np.arange(first, first + len(batch))
        first += len(batch)
        if copy is None:
            yield batch
        else:
            yield augment(batch, copy.augmentation, seed=copy.seed, indices=indices, copy=copy.number)


def worth_sharing(runner: Runner, n_images: int) -> bool:
    """Whether workers compute the features of so many images."""
    return runner.remote and n_images > READ


def shard_rows(
    dataset: Dataset,
    first: int,
    recipe: Recipe,
    runner: Runner,
    *,
    store: Cache,
    parts: Sequence[Mapping[str, Any]],
    task: str,
    progress: Progress,
) -> Iterator[Rows]:
    """Features of the images from ``first`` on, in order, shard after shard.

    Shards that are computed before an earlier one wait in ``store`` under ``parts`` and their rows, so that an
    interrupted run loses only what its workers were computing.
    """
    todo = _shards(len(dataset), first, runner.n_workers)
    waiting = _Waiting(store, parts)
    missing = [shard for shard in todo if not waiting.has(shard)]
    tasks = ((shard[0], dataset.images.subset(np.arange(*shard))) for shard in missing)
    said, done = throttled(progress), len(dataset) - sum(end - begin for begin, end in missing)
    following = iter(todo)
    awaited = next(following, None)
    for number, rows in runner.map(recipe, tasks):
        done += len(rows[0])
        said(task, done, len(dataset))
        if missing[number] != awaited:
            waiting.add(missing[number], rows)
            continue
        yield rows
        awaited = next(following, None)
        while awaited is not None and (early := waiting.take(awaited)) is not None:
            yield early
            awaited = next(following, None)
    while awaited is not None:  # an interrupted run had computed all that was left
        early = waiting.take(awaited)
        assert early is not None, f"images {awaited} were computed"
        yield early
        awaited = next(following, None)


def _shards(n_images: int, first: int, n_workers: int) -> list[tuple[int, int]]:
    """First image of each shard and the one after its last: whole batches, but for the last shard."""
    wanted = -(-(n_images - first) // (_SHARDS * n_workers))
    size = min(_LARGEST, READ * max(1, -(-wanted // READ)))
    return [(begin, min(begin + size, n_images)) for begin in range(first, n_images, size)]


class _Waiting:
    """Shards whose turn has not come: in the cache, or in memory where nothing is kept."""

    def __init__(self, store: Cache, parts: Sequence[Mapping[str, Any]]) -> None:
        self._store, self._parts = store, parts
        self._memory: dict[tuple[int, int], Rows] = {}

    def _keys(self, shard: tuple[int, int]) -> list[dict[str, Any]]:
        return [{**one, "rows": list(shard)} for one in self._parts]

    def has(self, shard: tuple[int, int]) -> bool:
        """Whether an interrupted run left this shard."""
        return all(self._store.get(one) is not None for one in self._keys(shard))

    def add(self, shard: tuple[int, int], rows: Rows) -> None:
        """Keep a shard."""
        for key, values in zip(self._keys(shard), rows, strict=True):
            draft = self._store.draft(key, (values.shape[0], values.shape[1]))
            draft.write(0, values)
            draft.finish()
        if not self.has(shard):  # there is no cache
            self._memory[shard] = tuple(values.copy() for values in rows)

    def take(self, shard: tuple[int, int]) -> Rows | None:
        """A shard, which is not kept any longer; None if it is not here."""
        if shard in self._memory:
            return self._memory.pop(shard)
        found = [self._store.get(one) for one in self._keys(shard)]
        if any(one is None for one in found):
            return None
        rows = tuple(np.array(one) for one in found)
        for key in self._keys(shard):
            self._store.discard(key)
        return rows
