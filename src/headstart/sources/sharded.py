"""Features computed by the workers of a runner, shard by shard; each worker decodes and runs its own images.

Results are those of one process to the bit: shards are made of the same batches, each computed by itself.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
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
    waiting = _Waiting(store, parts, todo)
    missing = [shard for shard in todo if not waiting.has(shard)]
    tasks = ((shard[0], dataset.images.subset(np.arange(*shard))) for shard in missing)
    said, done = throttled(progress), len(dataset) - sum(end - begin for begin, end in missing)
    results = runner.map(recipe, tasks)
    yield from waiting.in_turn()  # what an interrupted run has left
    for number, rows in results:
        done += len(rows[0])
        said(task, done, len(dataset))
        waiting.add(missing[number], rows)
        yield from waiting.in_turn()


def _shards(n_images: int, first: int, n_workers: int) -> list[tuple[int, int]]:
    """First image of each shard and the one after its last: whole batches, but for the last shard.

    They end at the same images wherever the first one begins, so that a run finds those of an interrupted one.
    """
    wanted = -(-n_images // (_SHARDS * n_workers))
    size = min(_LARGEST, READ * max(1, -(-wanted // READ)))
    ends = [*range(first - first % size + size, n_images, size), n_images]
    return list(pairwise([first, *ends]))


class _Waiting:
    """Shards whose turn has not come: those computed before an earlier one lie in the cache, if there is one."""

    def __init__(
        self, store: Cache, parts: Sequence[Mapping[str, Any]], todo: Sequence[tuple[int, int]]
    ) -> None:
        self._store, self._parts, self._todo = store, parts, deque(todo)
        self._next: Rows | None = None
        self._early: dict[tuple[int, int], Rows] = {}

    def _keys(self, shard: tuple[int, int]) -> list[dict[str, Any]]:
        return [{**one, "rows": list(shard)} for one in self._parts]

    def has(self, shard: tuple[int, int]) -> bool:
        """Whether an interrupted run left this shard."""
        found = [rows for key in self._keys(shard) if (rows := self._store.get(key)) is not None]
        if len(found) == len(self._parts):
            self._early[shard] = tuple(found)
        return shard in self._early

    def add(self, shard: tuple[int, int], rows: Rows) -> None:
        """Keep a shard until its turn."""
        if shard == self._todo[0]:
            self._next = rows
            return
        kept = []
        for key, values in zip(self._keys(shard), rows, strict=True):
            draft = self._store.draft(key, (values.shape[0], values.shape[1]))
            draft.write(0, values)
            kept.append(draft.finish())  # memory-mapped
        self._early[shard] = tuple(kept)

    def in_turn(self) -> Iterator[Rows]:
        """The shards that follow the last one, as far as they are here; they are not kept any longer."""
        while self._todo:
            if self._next is not None:
                yield self._next
                self._next = None
            elif (early := self._early.pop(self._todo[0], None)) is not None:
                yield tuple(np.array(one) for one in early)
                for key in self._keys(self._todo[0]):
                    self._store.discard(key)
            else:
                return
            self._todo.popleft()
