"""A classifier that follows scikit-learn's contract, for images or rows of features.

It imports scikit-learn, so the package imports this module only on use.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import NotFittedError as SklearnNotFittedError
from sklearn.utils import Tags
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import validate_data

from headstart.data.checks.refuse import checked
from headstart.data.dataset import Dataset
from headstart.data.given import many_images
from headstart.data.images.augment import parse_augmentation
from headstart.data.images.inputs import as_array, is_table
from headstart.data.stores import ImageStore
from headstart.errors import (
    ModelError,
    NotFittedError,
    SettingError,
    ShapeError,
    UnknownClassError,
)
from headstart.heads.base import Head
from headstart.heads.registry import make_head
from headstart.interfaces.estimator_inputs import (
    NO_LABELS,
    ON_DISK,
    as_given,
    check_row_parameters,
    checked_seed,
    image_rows,
    images_at,
    json_value,
    label_type,
    labelled,
    labels_from,
    listed,
    n_dimensions,
    parameters_of,
    store_of,
)
from headstart.models.model import open_model
from headstart.records import Array, Source
from headstart.sources.features import Extraction
from headstart.sources.precision import check_saved, precise
from headstart.sources.registry import open_source
from headstart.strategies.places import Probe
from headstart.strategies.probe import learn_head
from headstart.system.cache import Cache, FolderCache, default_cache

__all__ = ["TransferClassifier"]

_NOTE = "estimator"  # key of the manifest's settings that only this classifier reads


class _UnfittedError(NotFittedError, SklearnNotFittedError):  # type: ignore[misc]
    """Our error and scikit-learn's in one."""


class TransferClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A head on a frozen source, as a scikit-learn classifier.

    Parameters
    ----------
    source : str, path or Source, default='pixels'
        Source of features: ``drawings``, ``timm:NAME``, the folder of a model, or ``pixels`` (no network).
    layer, pooling : str, optional
        Layer to read features from, and pooling of its feature maps. Default: selected by
        cross-validation where the source has candidates.
    head : {'kernel', 'linear', 'mlp', 'neighbours', 'prototypes', 'ridge'}, optional
        Classifier on the features. Default: selected with the layer, else ``linear``.
    augment : str, optional
        Augmentation of the training images, such as ``"photo"`` or ``"shear=0.2,zoom=0.2"``.
    n_copies : int, default=3
        Number of augmented copies of each image.
    balance : bool, default=False
        Give every class the same weight, however many images it has.
    policy : {'squish', 'crop', 'letterbox', 'ink'}, optional
        How images are fitted to the input. Default: as the source was trained.
    size_px : int, optional
        Input size of ``photos``, ``photos-large`` or a timm network, in pixels. Default: as it was trained.
    image_shape : tuple of int, optional
        (height, width) or (height, width, channels) of the images in the rows of a 2-D ``X``. Without it
        such rows are features: the head is fitted on them directly.
    seed : int, default=0
        Random seed. The same seed on the same machine gives the same classifier.
    runtime : {'openvino', 'onnxruntime'}, default='openvino'
        Inference runtime.
    precision : {'fp32', 'int8'}, optional
        Precision of the network. ``int8`` takes about a third of the time; the network is calibrated on at most 100
        of the images. Default: fp32, or that of a model that is the source.
    cache : bool or path, default=False
        Cache features, so that a second fit on the same images does not run the network again. True is
        the user's cache, a path another one.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Labels, sorted as `numpy.unique` sorts them, of the type they were given in.
    model_ : Model
        The model, if fitted on images.
    head_ : Head
        The head, if fitted on rows of features.
    n_features_in_ : int
        Number of columns of a 2-D ``X`` at fit.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Their names, where ``X`` had names that are all text.

    Notes
    -----
    ``X`` may be images (n, height, width), (n, height, width, channels) or (n, channels, height, width), of
    whole numbers 0 - 255 or fractions 0 - 1; a 2-D array; a list or column of paths, Pillow images, bytes or
    arrays of different sizes; and, without ``y``, a folder of class folders, a name or a data frame as
    `headstart.load` takes it, or a Dataset. To predict, ``X`` may be an image file or a folder of images too.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.model_selection import cross_val_score
    >>> X, y = load_digits(n_class=3, return_X_y=True)
    >>> classifier = TransferClassifier("pixels", head="ridge", image_shape=(8, 8))
    >>> bool(cross_val_score(classifier, X, y, cv=3).mean() > 0.9)
    True
    >>> classifier.fit(X, y).predict(X[:3]).tolist()
    [0, 1, 2]
    """

    def __init__(
        self,
        source: str | os.PathLike[str] | Source = "pixels",
        *,
        layer: str | None = None,
        pooling: str | None = None,
        head: str | None = None,
        augment: str | None = None,
        n_copies: int = 3,
        balance: bool = False,
        policy: str | None = None,
        size_px: int | None = None,
        image_shape: tuple[int, ...] | None = None,
        seed: int = 0,
        runtime: str = "openvino",
        precision: str | None = None,
        cache: bool | str | os.PathLike[str] = False,
    ) -> None:
        self.source = source
        self.layer = layer
        self.pooling = pooling
        self.head = head
        self.augment = augment
        self.n_copies = n_copies
        self.balance = balance
        self.policy = policy
        self.size_px = size_px
        self.image_shape = image_shape
        self.seed = seed
        self.runtime = runtime
        self.precision = precision
        self.cache = cache

    def fit(self, X: Any, y: Any = None) -> Self:
        """Fit on images, or on rows of features.

        Parameters
        ----------
        X : array_like, sequence of path, path, str or Dataset
            See the notes of the class.
        y : array_like of shape (n_images,), optional
            Labels of any type. None where ``X`` has labels of its own.

        Returns
        -------
        TransferClassifier
            Itself.

        Raises
        ------
        HeadstartError
            If the input is not valid; each subclass is a ValueError too.
        """
        for name in [name for name in vars(self) if name.endswith("_") or name == "_order"]:
            delattr(self, name)
        if isinstance(X, Dataset | str | os.PathLike) or (y is None and is_table(X)):
            dataset = labelled(X, y)
            self._learn(dataset)
            self.classes_ = np.asarray(dataset.classes)
            return self
        inputs, labels = self._read(X, y, fitting=True)
        classes, codes = np.unique(labels, return_inverse=True)
        if len(classes) < 2:
            what = f"y has the class {classes.tolist()[0]!r} only" if len(classes) else "y is empty"
            raise UnknownClassError(f"{what}, expected at least 2 classes; pass samples of another class")
        names = np.array([str(one) for one in classes.tolist()])
        if isinstance(inputs, np.ndarray):
            self._learn_rows(inputs, names, codes)
        else:
            self._learn(Dataset("arrays", inputs, names[codes], tuple(names.tolist())))
        self.classes_ = classes
        return self

    def predict_proba(self, X: Any) -> Array:
        """Probability of each class.

        Parameters
        ----------
        X : array_like, sequence of path, path, str or Dataset
            As at fit; its labels are ignored.

        Returns
        -------
        ndarray of shape (n_images, n_classes), float32
            Columns in the order of ``classes_``.

        Raises
        ------
        NotFittedError
            If ``fit`` was not called; scikit-learn's as well as ours.
        HeadstartError
            If the input is not valid; each subclass is a ValueError too.
        """
        self._check_fitted()
        if isinstance(X, Dataset | str | os.PathLike):
            inputs: ImageStore | Array = X.images if isinstance(X, Dataset) else images_at(X)
        else:
            inputs, _ = self._read(X, NO_LABELS, fitting=False)
        on_rows, rows = hasattr(self, "head_"), isinstance(inputs, np.ndarray)
        if on_rows != rows:
            given, expected = ("rows of numbers", "images")[:: 1 if rows else -1]
            raise ShapeError(
                f"X has {given}, expected {expected} as at fit; pass what it was fitted on, or fit again"
            )
        if isinstance(inputs, np.ndarray):
            return self.head_.probabilities(inputs)
        some = np.full(len(inputs), self.model_.classes[0])
        dataset = Dataset("images", inputs, some, self.model_.classes)
        columns = self.model_.probabilities(dataset, runtime_name=self.runtime)
        return columns[:, self._order] if hasattr(self, "_order") else columns

    def predict(self, X: Any) -> NDArray[Any]:
        """The most probable label of each image; ``X`` as for `predict_proba`."""
        most_probable = self.predict_proba(X).argmax(axis=1)
        labels: NDArray[Any] = self.classes_[most_probable]
        return labels

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write a model folder, which the command line reads too.

        Parameters
        ----------
        folder : path
            New, empty, or an older model folder, which is replaced.

        Returns
        -------
        Path
            The folder.

        Raises
        ------
        NotFittedError
            If ``fit`` was not called.
        SettingError
            If it was fitted on rows of numbers, or on labels that text cannot bring back, or the
            folder holds something else.
        """
        self._check_fitted()
        if not hasattr(self, "model_"):
            raise SettingError(
                "classifier was fitted on rows of numbers, expected images for a model folder; fit it with "
                "image_shape, or keep it with joblib.dump"
            )
        note: dict[str, Any] = {
            "labels": label_type(self.classes_),
            "parameters": {
                ON_DISK.get(name, name): json_value(value)
                for name, value in self.get_params(deep=False).items()
            },
        }
        if hasattr(self, "n_features_in_"):
            note["n_features_in"] = int(self.n_features_in_)
        if hasattr(self, "feature_names_in_"):
            note["feature_names_in"] = self.feature_names_in_.tolist()
        manifest = self.model_.manifest
        noted = replace(manifest, settings={**manifest.settings, _NOTE: note})
        return replace(self.model_, manifest=noted).save(folder)

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> Self:
        """Open a model folder as a fitted classifier.

        Parameters
        ----------
        folder : path
            Written by `save`, or by any command that makes a model: its labels are then the names of the
            classes, and a new fit would learn from it.

        Returns
        -------
        TransferClassifier
            Gives the same predictions as the one that was saved.

        Raises
        ------
        ModelError
            If the folder or a file is missing, altered or not a model of ours.
        """
        model = open_model(folder)
        note = model.manifest.settings.get(_NOTE, {"parameters": {"source": os.fspath(folder)}})
        try:
            fitted = cls(**parameters_of(note["parameters"], cls._get_param_names()))
            labels = as_given(model.classes, note.get("labels", "str"))
            fitted._order = np.argsort(labels, kind="stable")  # the model's own order may be 1, 2, ..., 10
            fitted.classes_ = labels[fitted._order]
            if "n_features_in" in note:
                fitted.n_features_in_ = int(note["n_features_in"])
            if "feature_names_in" in note:
                fitted.feature_names_in_ = np.array([str(one) for one in note["feature_names_in"]], object)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise ModelError(
                f"manifest of model {os.fspath(folder)!r} has malformed notes of a classifier ({error}), "
                "expected those that save() wrote; save the classifier again"
            ) from error
        fitted.model_ = model
        return fitted

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags

    def _check_fitted(self) -> None:
        if not hasattr(self, "classes_"):
            raise _UnfittedError(
                "classifier is not fitted, expected fit() first; call fit with images and "
                "labels, or open a model"
            )

    def _read(self, X: Any, y: Any, *, fitting: bool) -> tuple[ImageStore | Array, NDArray[Any]]:
        """Images or rows of features, and at fit the labels."""
        items = listed(X)
        if items is None and n_dimensions(X) < 3:
            return self._read_table(X, y, fitting=fitting)
        images = many_images(as_array(X, "X")) if items is None else store_of(items, fitting=fitting)
        return images, labels_from(y, len(images)) if fitting else np.empty(0)

    def _read_table(self, X: Any, y: Any, *, fitting: bool) -> tuple[ImageStore | Array, NDArray[Any]]:
        """The same for a 2-D array, which scikit-learn validates."""
        rows = self.image_shape is None
        kind = np.float32 if rows else "numeric"
        least = 2 if fitting else 1
        checked = validate_data(self, X, y, reset=fitting, dtype=kind, ensure_min_samples=least)
        table, labels = checked if fitting else (checked, np.empty(0))
        if fitting:
            check_classification_targets(labels)
        return (table if rows else image_rows(table, self.image_shape)), labels

    def _learn(self, dataset: Dataset) -> None:
        """Fit a head on the source's features of these images."""
        seed = checked_seed(self.seed)
        source = self.source
        if not isinstance(source, Source):
            source = open_source(os.fspath(source), dataset, seed, self.size_px, self.policy)
        elif self.size_px is not None or self.policy is not None:
            raise SettingError(
                "size_px or policy is given with a Source object, expected the name of a source; "
                "change the Source's input"
            )
        augmentation = None if self.augment is None else parse_augmentation(self.augment, int(self.n_copies))
        probe = Probe(self.layer, self.pooling, self.head, augmentation, bool(self.balance))
        check_saved(self.precision)
        options = Extraction(self._cache(), self.runtime, self.precision)
        dataset, _ = checked(dataset)
        train = dataset if dataset.splits is None else dataset.split("train")
        ready = precise(source, lambda: train, options)
        source, options = ready.source, ready.options
        self.model_ = learn_head(source, dataset, probe, seed=seed, spare=False, options=options).model

    def _learn_rows(self, rows: Array, names: NDArray[np.str_], codes: NDArray[np.intp]) -> None:
        """Fit a head on the rows themselves."""
        check_row_parameters(self.get_params(deep=False))
        head: Head = make_head(self.head or "linear")
        classes = tuple(names.tolist())
        self.head_ = head.fit(
            rows, names[codes], classes=classes, seed=checked_seed(self.seed), balance=bool(self.balance)
        )

    def _cache(self) -> Cache | None:
        if isinstance(self.cache, bool | np.bool_):
            return default_cache() if self.cache else None
        return FolderCache(self.cache)
