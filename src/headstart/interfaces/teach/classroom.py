"""What one visitor teaches: classes, examples, a head fitted again after each, predictions, a model.

An image goes through the source once, with its augmented copies; the rest is closed forms.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from threading import RLock
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from headstart.data.checks.copies import near_copies, parts_of
from headstart.data.checks.duplicates import THUMB_PX, exact_pairs
from headstart.data.dataset import Dataset
from headstart.data.images.decode import decode_reduced
from headstart.data.images.fit import fit_image
from headstart.data.images.turns import turn
from headstart.data.stores import FileImages
from headstart.errors import DataError, SettingError, UnknownClassError, nearest
from headstart.evaluation.clusters import accuracy_score
from headstart.heads.base import Head
from headstart.heads.novelty import RATE, Novelty, fit_novelty
from headstart.heads.registry import make_head
from headstart.heads.scaling import Standardiser
from headstart.interfaces.teach.left_out import leave_one_out
from headstart.interfaces.teach.lesson import Example, Lesson, LessonPrediction, has, listed
from headstart.interfaces.teach.live_source import HEAD, SEED, LiveSource, pixels_address
from headstart.models.novelty_rate import OFF, NoveltyRate, checked_rate
from headstart.records import NONE_OF_THESE, Array, Codes, InputSpec
from headstart.sources.features import Extraction
from headstart.strategies.places import Probe
from headstart.strategies.probe import learn_head
from headstart.system.temporary import own_folder

__all__ = ["FOLDER", "Classroom"]

FOLDER = "headstart-teach-"
"""How the names of temporary folders begin; after a kill, the next server removes them."""
_TINY_PX = 64
_ROWS = 300  # up to which a fit takes well under a second on one slow core
_MOST_EXAMPLES, _MOST_CLASSES = 300, 20
_NAME_LENGTH = 40
_FEW, _UNEVEN = 5, 3.0
_IN_NAMES = " -_."


@dataclass(frozen=True)
class _Fitted:
    """The head and what else a prediction uses; examples in the order of the rows."""

    head: Head
    novelty: Novelty | None
    examples: tuple[Example, ...]
    mean: Array  # (n_features,)
    known: Array  # (n_rows, n_features), about the mean, of length 1
    images: NDArray[np.intp]


class Classroom:
    """Classes taught by example, their accuracy and predictions.

    Thread-safe. A few examples get up to eight augmented copies each; many get fewer, so that a fit has at
    most 300 rows and stays fast. The source is ``live``, or what ``fitting`` returns for the pixels of the first
    example: it stays until all examples are removed. ``novelty_rate`` is as for `Model.with_novelty_rate`.
    """

    def __init__(
        self,
        live: LiveSource | Callable[[NDArray[np.uint8]], LiveSource],
        novelty_rate: NoveltyRate = None,
    ) -> None:
        self._novelty_rate = checked_rate(novelty_rate)
        self._fitting = None if isinstance(live, LiveSource) else live
        self._live = live if isinstance(live, LiveSource) else None
        self._classes: list[str] = []
        self._examples: list[Example] = []  # in the order of a saved dataset
        self._numbers = 0
        self._saved: set[str] = set()
        self._fitted: _Fitted | None = None
        self._lesson: Lesson | None = None
        self._lock = RLock()

    @property
    def classes(self) -> tuple[str, ...]:
        """Names in the order they were added."""
        return tuple(self._classes)

    @property
    def n_bytes(self) -> int:
        """Size of the image files of all examples."""
        with self._lock:
            return sum(len(one.content) for one in self._examples)

    def examples(self, label: str) -> tuple[Example, ...]:
        """The examples of a class in the order they were added."""
        with self._lock:
            mine = [one for one in self._examples if one.label == label]
        return tuple(sorted(mine, key=lambda one: one.number))

    def add_class(self, name: str) -> str:
        """Add a class; returns its name with single spaces."""
        name = " ".join(name.split())
        with self._lock:
            if not name or len(name) > _NAME_LENGTH or not name.isprintable():
                raise SettingError(
                    f"class name is {name[:_NAME_LENGTH]!r}, expected 1 to {_NAME_LENGTH} "
                    "characters that can "
                    "be printed; type a short word"
                )
            if name.casefold() in {NONE_OF_THESE, *(one.casefold() for one in self._classes)}:
                raise SettingError(f"class {name!r} exists already, expected a new name; choose another")
            if len(self._classes) >= _MOST_CLASSES:
                raise SettingError(
                    f"there are {_MOST_CLASSES} classes, expected at most that many; "
                    "train larger datasets with: headstart transfer"
                )
            self._classes.append(name)
            self._forget()
        return name

    def remove_class(self, name: str) -> None:
        """Remove a class and its examples; `UnknownClassError` if there is none of this name."""
        with self._lock:
            self._check_class(name)
            for example in self.examples(name):
                self.remove(example.number)
            self._classes.remove(name)
            self._forget()

    def add(self, name: str, content: bytes, file_name: str = "the image") -> Example:
        """Add one image to a class."""
        with turn():
            pixels = (read := decode_reduced(content, file_name, None)).pixels
            with self._lock:
                live = self._source_for(pixels)
            prepared = live.prepared(read, content, file_name)
            digest = hashlib.sha256(repr(pixels.shape).encode())
            digest.update(np.ascontiguousarray(pixels).data)
            thumb = fit_image(pixels, InputSpec(THUMB_PX, THUMB_PX, 3))
            tiny, address = max(pixels.shape[:2]) <= _TINY_PX, pixels_address(pixels)
            parts = None if tiny else parts_of(pixels, thumb)
            del pixels, read
        with self._lock:
            self._check_class(name)
            if len(self._examples) >= _MOST_EXAMPLES:
                raise DataError(
                    f"there are {_MOST_EXAMPLES} examples, expected at most that many; "
                    "train larger datasets with: headstart transfer"
                )
            if self._examples and live is not self._live:  # another image was the first one meanwhile
                live = self._used
                prepared = live.prepared(decode_reduced(content, file_name, None), content, file_name)
            self._live = live
            self._numbers += 1
            example = Example(
                self._numbers,
                name,
                content,
                digest.digest(),
                prepared,
                thumb,
                tiny,
                parts,
                address,
                live.rows(prepared, len(self._examples)),
            )
            self._examples.append(example)
            self._forget()
        return example

    def remove(self, number: int) -> None:
        """Remove an example; `UnknownClassError` if there is none of this number."""
        with self._lock:
            places = {one.number: place for place, one in enumerate(self._examples)}
            if number not in places:
                raise UnknownClassError(
                    f"example {number} does not exist, expected one that does; reload the page"
                )
            last = self._examples.pop()
            if last.number != number:  # the last example takes its place and the augmented copies there
                place = places[number]
                self._examples[place] = replace(last, rows=self._used.rows(last.prepared, place))
            self._forget()

    def lesson(self) -> Lesson:
        """Leave-one-out accuracy of the examples, and remarks; computed again only after a change."""
        with self._lock:
            if self._lesson is None:
                begun = perf_counter()
                pairs = self._pairs()
                units = self._units(pairs)
                testable = self._left_out(units)
                score = None
                if testable is not None:
                    some, right = testable
                    # copies count as one image, which is right if each of them is
                    score = accuracy_score(
                        np.array([right[units == unit].all() for unit in np.unique(units[some])]),
                        crossed=True,
                    )
                wrong = () if testable is None else tuple(np.flatnonzero(testable[0] & ~testable[1]).tolist())
                numbers = tuple(self._examples[place].number for place in wrong)
                self._lesson = Lesson(score, numbers, self._remarks(pairs), perf_counter() - begun)
            return self._lesson

    def predict(self, content: bytes, file_name: str = "the image") -> LessonPrediction | None:
        """Predict the class of an image; None while fewer than two classes have an example."""
        with turn():
            read = decode_reduced(content, file_name, None)
            with self._lock:
                fitted, live = self._fit(), self._source_for(read.pixels)
            prepared = live.prepared(read, content, file_name)
            del read
        if fitted is None:
            return None
        features = live.read(prepared[None])
        probabilities = fitted.head.probabilities(features)[0]
        novelty = None if fitted.novelty is None else float(fitted.novelty.scores(features)[0])
        similarities = fitted.known @ _unit(features - fitted.mean)[0]
        best, classes = int(similarities.argmax()), fitted.head.classes_
        known = novelty is None or novelty <= 1
        predicted = classes[int(probabilities.argmax())] if known else NONE_OF_THESE
        listed = tuple((name, float(value)) for name, value in zip(classes, probabilities, strict=True))
        return LessonPrediction(
            predicted, listed, novelty, fitted.examples[fitted.images[best]], float(similarities[best])
        )

    def save(self, output: Path, name: str) -> Path:
        """Write an ordinary model folder that predicts as this classroom does."""
        name = " ".join(name.split())
        plain = all(one.isalnum() or one in _IN_NAMES for one in name) and name[:1].isalnum()
        if not plain or len(name) > _NAME_LENGTH or name.endswith("."):
            raise SettingError(
                f"model name is {name[:_NAME_LENGTH]!r}, expected 1 to {_NAME_LENGTH} "
                "letters, digits, spaces, "
                "hyphens or dots, a letter or digit first; type a plain name"
            )
        folder = output / name
        with self._lock:
            if folder.exists() and name not in self._saved:
                raise SettingError(f"model {name!r} exists already, expected a new name; choose another")
            if len(self._taught()) < 2:
                raise UnknownClassError(
                    "fewer than 2 classes have an example, expected 2 to save a model; teach some"
                )
            with own_folder(FOLDER) as temporary:
                learned = learn_head(
                    self._used.source,
                    self._dataset(temporary, name),
                    self._probe(),
                    seed=SEED,
                    spare=False,
                    options=Extraction(precision="fp32"),  # as a saved model computes
                )
                output.mkdir(parents=True, exist_ok=True)
                rate = self._novelty_rate if learned.model.manifest.novelty else None
                learned.model.with_novelty_rate(rate).save(folder)
            self._saved.add(name)
        return folder

    def _source_for(self, pixels: NDArray[np.uint8]) -> LiveSource:
        """The source in use; before the first example, that which fits the image."""
        if self._fitting is not None and not self._examples:
            return self._fitting(pixels)
        return self._used

    @property
    def _used(self) -> LiveSource:
        assert self._live is not None, "it is set with the first example"
        return self._live

    def _check_class(self, name: str) -> None:
        if name not in self._classes:
            known = nearest(name, self._classes) if self._classes else "there is none yet"
            raise UnknownClassError(f"class {name!r} is unknown, expected one of those taught, {known}")

    def _forget(self) -> None:
        self._fitted = self._lesson = None

    def _taught(self) -> tuple[str, ...]:
        """Classes with an example."""
        taught = {one.label for one in self._examples}
        return tuple(name for name in self._classes if name in taught)

    def _n_copies(self) -> int:
        """Augmented copies of each example: fewer where there are many examples."""
        augmentation = self._used.augmentation
        most = 0 if augmentation is None else augmentation.n_copies
        return max(0, min(most, _ROWS // max(1, len(self._examples)) - 1))

    def _probe(self) -> Probe:
        layer, pooling = self._used.place
        n_copies, augmentation = self._n_copies(), self._used.augmentation
        fewer = None if augmentation is None or not n_copies else replace(augmentation, n_copies=n_copies)
        return Probe(layer, pooling, HEAD, fewer)

    def _rows(self) -> tuple[Array, Codes, NDArray[np.intp]]:
        """Rows as `strategies.training_rows` orders them: images, then copy after copy; codes; images."""
        n_copies, classes = self._n_copies(), self._taught()
        rows = np.stack(
            [one.rows[: 1 + n_copies] for one in self._examples], axis=1
        )  # (1 + n_copies, n, width)
        codes = np.array([classes.index(one.label) for one in self._examples], np.int64)
        images = np.tile(np.arange(len(codes)), 1 + n_copies)
        return rows.reshape(-1, rows.shape[2]), codes[images], images

    def _fit(self) -> _Fitted | None:
        classes = self._taught()
        if self._fitted is None and len(classes) >= 2:
            rows, codes, images = self._rows()
            head = make_head(HEAD).fit(
                rows, np.asarray(classes)[codes], classes=classes, seed=SEED, images=images
            )
            novelty = None
            if self._novelty_rate != OFF:
                rate = float(self._novelty_rate or RATE)
                novelty = fit_novelty(rows, codes, images, rate=rate, seed=SEED)
            mean = rows.mean(axis=0)
            self._fitted = _Fitted(head, novelty, tuple(self._examples), mean, _unit(rows - mean), images)
        return self._fitted

    def _pairs(self) -> list[tuple[int, int]]:
        """Pairs of examples that are exact or near copies, by position."""
        exact = exact_pairs([one.digest for one in self._examples])
        kept = np.setdiff1d(np.arange(len(self._examples)), [second for _, second in exact])
        if len(kept) < 2:
            return exact
        thumbs = np.stack([self._examples[place].thumb for place in kept])
        parts = {
            at: found for at, place in enumerate(kept) if (found := self._examples[place].parts) is not None
        }
        near = near_copies(thumbs, np.array([self._examples[place].tiny for place in kept]), parts)
        return exact + [(int(kept[first]), int(kept[second])) for first, second, _ in near]

    def _units(self, pairs: Sequence[tuple[int, int]]) -> NDArray[np.intp]:
        """One number for all copies of an image, which are left out together."""
        units = np.arange(len(self._examples))
        for first, second in pairs:
            low, high = sorted((units[first], units[second]))
            units[units == high] = low
        return units

    def _left_out(self, units: NDArray[np.intp]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]] | None:
        """Which examples can be left out, and which of them are then classified correctly."""
        fitted = self._fit()
        if fitted is None:
            return None
        rows, codes, images = self._rows()
        standard = Standardiser.of(rows)(rows).astype(np.float64)
        testable, right = leave_one_out(
            standard @ standard.T, codes, images, units, fitted.head.chosen_["strength"]
        )
        return (testable, right) if len(np.unique(codes[: len(testable)][testable])) >= 2 else None

    def _remarks(self, pairs: Sequence[tuple[int, int]]) -> tuple[str, ...]:
        counts = {name: len(self.examples(name)) for name in self._classes}
        conflicting = [pair for pair in pairs if len({self._examples[place].label for place in pair}) > 1]
        remarks = (
            [f"The same image is taught as {self._named(conflicting[0])}: one of them is wrong."]
            if conflicting
            else []
        )
        if same := [pair for pair in pairs if pair not in conflicting]:
            more = f" ({len(same)} pairs)" if len(same) > 1 else ""
            remarks.append(
                f"Nearly the same image twice in {self._examples[same[0][0]].label}{more}: "
                "a copy adds no information and counts once in the accuracy."
            )
        if none := [name for name, count in counts.items() if not count]:
            remarks.append(f"{listed(none)} {has(none)} no example yet.")
        if few := [name for name, count in counts.items() if 0 < count < _FEW]:
            remarks.append(f"{listed(few)} {has(few)} fewer than {_FEW} examples: teach a few more.")
        some = {name: count for name, count in counts.items() if count}
        if some and max(some.values()) > _UNEVEN * min(some.values()):
            most, least = max(some, key=some.__getitem__), min(some, key=some.__getitem__)
            remarks.append(f"{most} has {some[most]} examples and {least} {some[least]}: balance them.")
        return tuple(remarks)

    def _named(self, pair: tuple[int, int]) -> str:
        return " and as ".join(self._examples[place].label for place in pair)

    def _dataset(self, folder: Path, name: str) -> Dataset:
        """The examples as files, in the order of the rows."""
        paths = [folder / f"{place:04}" for place in range(len(self._examples))]
        for path, example in zip(paths, self._examples, strict=True):
            path.write_bytes(example.content)
        labels = np.array([one.label for one in self._examples])
        return Dataset(name, FileImages(paths), labels, self._taught())


def _unit(rows: Array) -> Array:
    """Rows scaled to length 1."""
    unit: Array = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return unit
