"""The saved model: a folder with manifest, graph, weights and card, and its predictions."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.data.given import GivenImages, image_stores
from headstart.data.images.prepare import store_batches
from headstart.graph import run as runtime
from headstart.graph.candidates import saved_places
from headstart.models.answer_sets import answer_sets
from headstart.models.card import render_card
from headstart.models.contents import packed, unpacked
from headstart.models.folder import read_folder, write_folder
from headstart.models.manifest import Manifest, check_name
from headstart.models.novelty_rate import NoveltyRate, at_novelty_rate
from headstart.models.outputs import check_count, checked_outputs
from headstart.records import Array, Images, Prediction, Seen, Source, Weights
from headstart.system.progress import SILENT, Progress, with_progress

__all__ = ["Model", "open_model"]

_BATCH = 64


@dataclass(frozen=True, eq=False)
class Model:
    """A classifier as one ONNX graph, which predicts the same in Python, on the command line and in other runtimes.

    Attributes
    ----------
    manifest : Manifest
        Classes, input, training data and measured scores.
    graph : bytes
        Serialized ONNX model, ``images`` uint8 (n, height, width, channels) to ``probabilities`` (n, n_classes)
        and, where the manifest has ``novelty``, ``novelty`` (n,).
    weights : dict of str to ndarray
        Trainable weights in the canonical layout, to continue training with.
    samples : tuple of ndarray of shape (height, width, channels), uint8
        A few training images as they came, to check an export with.
    seen : Seen or None
        Which images it was trained on; None for models saved before that was recorded.

    Notes
    -----
    Two models are equal only if they are the same object.
    """

    manifest: Manifest
    graph: bytes
    weights: Weights
    samples: tuple[NDArray[np.uint8], ...] = ()
    seen: Seen | None = None

    def __repr__(self) -> str:
        """One short line: graph and weights are megabytes."""
        manifest, taken = self.manifest, self.manifest.input
        return (
            f"Model({manifest.name!r}, {manifest.strategy}, {len(self.classes)} classes, "
            f"{taken.height_px} x {taken.width_px} px, {len(self.graph):,} bytes)"
        )

    def __getstate__(self) -> dict[str, Any]:
        """What is pickled and copied: all but the compiled graphs, which exist in one process only."""
        return {one.name: getattr(self, one.name) for one in fields(self)}

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the probabilities."""
        return self.manifest.classes

    def probabilities(
        self,
        images: Any,
        *,
        runtime_name: str = "openvino",
        precision: str = "fp32",
        progress: Progress = SILENT,
    ) -> Array:
        """Probability of each class for every image.

        Parameters
        ----------
        images : path, bytes, Pillow image, array_like, sequence or iterator of these, or Dataset
            As for `predict`.
        runtime_name : {'openvino', 'onnxruntime'}, default='openvino'
            What executes the graph.
        precision : {'fp32', 'bf16', 'auto'}, default='fp32'
            fp32 gives the same result on every machine to about 1e-5.
        progress : Progress, optional
            Gets the number of images done.

        Returns
        -------
        ndarray of shape (n_images, n_classes), float32
            One row per image in the order of the images, columns in the order of `classes`. Rows sum to 1.

        Raises
        ------
        HeadstartError
            As for `predict`.

        Examples
        --------
        >>> import headstart as hs
        >>> model = hs.transfer("pixels", "digits:0-1", head="ridge", judge=False)
        >>> one = hs.load("digits:0-1").images.pixels[0]
        >>> model.probabilities(one).shape
        (1, 2)
        """
        prediction = self.prediction(
            images, runtime_name=runtime_name, precision=precision, progress=progress
        )
        return prediction.probabilities

    def prediction(
        self,
        images: Any,
        *,
        runtime_name: str = "openvino",
        precision: str = "fp32",
        progress: Progress = SILENT,
    ) -> Prediction:
        """Probabilities and novelty of every image; parameters as for `probabilities`.

        Returns
        -------
        Prediction
            Its ``names`` are the classes, or ``none of these``.
        """
        self.load_runtime(runtime_name)  # before the threads that decode start
        spec = self.manifest.input
        n_images, stores = image_stores(images, spec, _BATCH)
        first = next(stores, GivenImages(()))
        # a batch is padded: one image must not cost as much as 64
        size = min(_BATCH, 1 << max(0, len(first) - 1).bit_length())
        prepared: Iterator[Images] = chain.from_iterable(
            store_batches(store, spec, size) for store in chain([first], stores)
        )
        if n_images is not None:  # of a stream nobody knows the number
            prepared = with_progress(prepared, n_images, "predict", progress)
        return self.predict_prepared(
            prepared, runtime_name=runtime_name, precision=precision, batch_size=size
        )

    def predict_prepared(
        self,
        prepared: Iterable[Images],
        *,
        runtime_name: str = "openvino",
        precision: str = "fp32",
        batch_size: int = _BATCH,
    ) -> Prediction:
        """Predict batches of uint8 images that `data.images.prepare` has resized to the model's input.

        Parameters
        ----------
        prepared : iterable of ndarray of shape (n, height_px, width_px, channels), uint8
            Batches.
        runtime_name, precision : str
            As for `probabilities`.
        batch_size : int, default=64
            Usual number of images in a batch.

        Returns
        -------
        Prediction
            In the order of the images.
        """
        sizes: list[int] = []

        def counted() -> Iterator[Images]:
            for batch in prepared:
                sizes.append(len(batch))
                yield batch

        outputs = self._executable(runtime_name, precision, batch_size).stream(counted())
        parts = [checked_outputs(one, len(self.classes), self.manifest.name) for one in outputs]
        n_outputs = 2 if self.manifest.novelty else 1
        empty = (np.empty((0, len(self.classes)), np.float32), np.empty(0, np.float32))[:n_outputs]
        found = Prediction(*(np.concatenate(values) for values in zip(empty, *parts, strict=True)))
        check_count(found, sum(sizes), self.manifest.name)
        return found

    def predict(
        self,
        images: Any,
        *,
        refuse: bool = True,
        runtime_name: str = "openvino",
        precision: str = "fp32",
    ) -> NDArray[np.str_]:
        """The most probable class of every image, or ``none of these``.

        The answer is always an array with one name per image, in the order of the images: one image gives an
        array of one name.

        Parameters
        ----------
        images : path, bytes, Pillow image, array_like, sequence or iterator of these, or Dataset
            One image: the path of a file; the bytes of one, or an open file; a Pillow image; an array or
            tensor (height, width) or (height, width, channels), with 1 to 4 channels: grey or red, green, blue,
            then alpha if there is any.

            Many: a folder, of which all images are predicted in the order of their names; a glob such as
            ``"scans/*.png"``; an array or tensor (n_images, height, width),
            (n_images, height, width, channels) or (n_images, channels, height, width); a list, column or
            generator of single images of any kind and size, where an array may also be
            (channels, height, width); a Dataset, whose labels are ignored.

            An array (3 or 4, height, width) could be one image with channels first or that many grey images.
            It is read as grey images only if the model has learned from grey images of that size.

            Values of arrays are 0 - 255 in whole numbers, 0 - 1 in floating point, or booleans. Files and
            Pillow images are turned upright, and transparent pixels are put on white.
        refuse : bool, default=True
            Predict ``none of these`` for images unlike the training images. False always predicts a class.
        runtime_name, precision : str
            As for `probabilities`.

        Returns
        -------
        ndarray of shape (n_images,), str

        Raises
        ------
        MissingDataError
            If a path does not exist, or a folder or glob contains no image.
        BrokenDataError
            If an image cannot be read. `headstart.models.predict_files` predicts the others, and names the
            file of each prediction.
        ShapeError
            If an array has another shape, could be one image or many, or has values in another range.
        DataError
            If it is none of these.

        Examples
        --------
        >>> import headstart as hs
        >>> model = hs.transfer("pixels", "digits:0-1", head="ridge", judge=False)
        >>> digits = hs.load("digits:0-1").images.pixels  # (360, 8, 8, 1), uint8
        >>> model.predict(digits[0]).tolist()
        ['0']
        >>> model.predict(digits[:3]).tolist()
        ['0', '1', '0']
        >>> from PIL import Image
        >>> model.predict([Image.fromarray(digit[..., 0]) for digit in digits[:3]]).tolist()
        ['0', '1', '0']
        """
        prediction = self.prediction(images, runtime_name=runtime_name, precision=precision)
        return (prediction if refuse else Prediction(prediction.probabilities)).names(self.classes)

    def answer_sets(self, images: Any, level: float = 0.95) -> list[tuple[str, ...]]:
        """The classes that each image may have: the true one is among them at the stated level.

        Parameters
        ----------
        images : path, bytes, Pillow image, array_like, sequence or iterator of these, or Dataset
            As for `predict`.
        level : float, default=0.95
            Share of new images of the model's classes, in (0, 1), whose set has the true class.

        Returns
        -------
        list of tuple of str
            For every image one class or more, the most probable first; all classes where too few images were left out
            of training for this level.

        Raises
        ------
        HeadstartError
            As for `predict`; ModelError for a model without left-out scores, as with ``judge=False``.

        Warns
        -----
        UserWarning
            If every set holds all classes because too few images were left out.

        Examples
        --------
        >>> import headstart as hs
        >>> digits = hs.load("digits:0-1")
        >>> model = hs.transfer("pixels", digits, head="ridge")
        >>> model.answer_sets(digits.images.pixels[:2])
        [('0',), ('1',)]
        """
        rule = answer_sets(self.manifest, level)
        if rule.remark is not None:
            warnings.warn(rule.remark, stacklevel=2)
        return rule.names(self.probabilities(images), self.classes)

    def with_novelty_rate(self, rate: NoveltyRate) -> Model:
        """The same model, which may refuse another share of the images of its classes as ``none of these``.

        Parameters
        ----------
        rate : float, 'off' or None
            A share in (0, 1); ``off`` predicts a class for every image; None changes nothing.

        Raises
        ------
        HeadstartError
            If the rate is neither, or no left-out scores are stored to set another one from.
        """
        manifest, graph = at_novelty_rate(self.manifest, self.graph, rate)
        return replace(self, manifest=manifest, graph=graph)

    def named(self, name: str | None) -> Model:
        """The same model under another name; SettingError for an empty name or one of several lines."""
        check_name(name)
        return self if name is None else replace(self, manifest=replace(self.manifest, name=name))

    def load_runtime(self, runtime_name: str) -> None:
        """Import the runtime, before threads that prepare images start; SettingError if it is unknown."""
        runtime.import_runtime(runtime_name)

    def _executable(self, runtime_name: str, precision: str, batch_size: int) -> runtime.Executable:
        key = (runtime_name, precision, batch_size)
        if key not in self._compiled:
            self._compiled[key] = runtime.compile_graph(
                self.graph, runtime=runtime_name, precision=precision, batch_size=batch_size
            )
        return self._compiled[key]

    @cached_property
    def _compiled(self) -> dict[tuple[str, str, int], runtime.Executable]:
        return {}

    @property
    def precision(self) -> str:
        """``int8`` where the graph has its convolutions in 8 bits, else ``fp32``."""
        return str(self.manifest.source.get("precision", "fp32"))

    def source(self, name: str | None = None) -> Source:
        """The model as a source for transfer: the same graph, read at any of its layers."""
        manifest = self.manifest
        return Source(
            name or manifest.name,
            self.graph,
            replace(manifest.input, depth_bits=None),  # other images have a depth of their own
            manifest.layers,
            manifest.default_layer,
            manifest.source_fingerprint,
            manifest.classes,
            self.precision,
            candidates=saved_places(manifest.network, manifest.layers, manifest.default_layer),
            network=None if manifest.network is None else (manifest.network, dict(self.weights)),
            notes=self._notes(),
            seen=self.seen,
        )

    def _notes(self) -> dict[str, str]:
        """The licence and the calibration of the network that the model was made from, if it has them."""
        made_from = self.manifest.source
        notes = {"calibrated on": made_from["calibrated_on"]} if "calibrated_on" in made_from else {}
        if "licence" in made_from:
            notes["licence"] = made_from["licence"]
            notes["licence from"] = f"the source of the model, {made_from['name']}"
        return notes

    def save(self, folder: str | os.PathLike[str], report: str | None = None) -> Path:
        """Write the model folder completely or not at all.

        Parameters
        ----------
        folder : path
            New, empty, or an older model folder, which is replaced.
        report : str, optional
            HTML to save in the folder as ``report.html``.

        Returns
        -------
        Path
            The folder.

        Raises
        ------
        SettingError
            If the folder holds something else.
        UnwritableError
            If a file cannot be written, for instance because the disk is full; an older model stays.
        ModelError
            If the model could not be opened again, for instance because its graph has other operations.
        """
        contents = {
            "card.md": render_card(self.manifest).encode(),
            "model.onnx": self.graph,
            **packed(self.weights, self.samples, self.seen),
        }
        return write_folder(folder, self.manifest, contents, report)


def open_model(folder: str | os.PathLike[str]) -> Model:
    """Open a model folder: parse, check, construct. No code in the folder is ever run.

    Parameters
    ----------
    folder : path
        As written by `Model.save`.

    Returns
    -------
    Model
        Ready to predict.

    Raises
    ------
    ModelError
        If the folder or a file is missing, truncated, altered or not written by headstart.
    """
    place = str(folder)
    manifest, contents = read_folder(folder)
    weights, samples, seen = unpacked(contents, manifest.network, place)
    return Model(manifest, contents["model.onnx"], weights, samples, seen)
