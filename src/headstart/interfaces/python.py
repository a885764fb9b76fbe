"""The Python interface: ``hs.train``, ``hs.transfer``, ``hs.embed``, ``hs.evaluate`` and ``hs.study``."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from headstart.data.checks.hold_out import hold_out
from headstart.data.checks.refuse import checked
from headstart.data.dataset import Dataset
from headstart.data.images.augment import parse_augmentation
from headstart.data.readers.load import load
from headstart.data.readers.unlabelled import load_unlabelled
from headstart.data.reading import current_reading, reading
from headstart.errors import SettingError
from headstart.evaluation.records import Evaluated
from headstart.models.manifest import check_name
from headstart.models.model import Model, open_model
from headstart.records import Source, TrainSettings
from headstart.report.records import Report
from headstart.sources.embedded import embedded_source
from headstart.sources.features import Extraction
from headstart.sources.fitting import fitting_source, inputs_ahead, opened_ahead, with_fitting_policy
from headstart.sources.order import check_order
from headstart.sources.registry import open_source
from headstart.strategies.finetune.options import parse_finetune, parse_transfer
from headstart.strategies.places import Probe
from headstart.strategies.scratch import learn_network
from headstart.system.cache import default_cache
from headstart.system.progress import SILENT
from headstart.workflows.embed import SHARD_SIZE, Embedded, EmbedRequest, run_embed
from headstart.workflows.evaluate import run_evaluation
from headstart.workflows.study import CONTROLS, StudyRequest, parse_controls, run_study
from headstart.workflows.transfer import run_transfer

__all__ = ["embed", "evaluate", "study", "train", "transfer"]


def train(
    data: Any,
    *,
    network: str = "cnn",
    engine: str = "torch",
    settings: TrainSettings | None = None,
    holdout: float | None = None,
    name: str | None = None,
    seed: int = 0,
) -> Model:
    """Train a network from scratch.

    Parameters
    ----------
    data : str, path, Dataset, data frame or iterable of (image, label)
        A dataset, or what `headstart.load` takes. Its ``test`` split is not used.
    network : {'cnn', 'mlp', 'mlp-wide'}, default='cnn'
        Architecture to train.
    engine : {'torch', 'scratch'}, default='torch'
        PyTorch, or the network written from scratch in NumPy.
    settings : TrainSettings, optional
        Default: five epochs of Adam.
    holdout : float, optional
        Share of the images to hold out as a test set, such as 0.2. `evaluate` finds them again.
    name : str, optional
        Name of the model, on one line. Default: made from the names of network and dataset.
    seed : int, default=0
        Random seed. The same seed on the same machine gives the same model.

    Returns
    -------
    Model
        Save it with ``model.save(folder)``.

    Raises
    ------
    HeadstartError
        If an argument or the data is not valid; the subclass names the kind.

    Warns
    -----
    UserWarning
        If training diverged, or the model is not significantly better than the most frequent class.

    Examples
    --------
    >>> import headstart as hs
    >>> model = hs.train("digits:0-1", network="mlp", engine="scratch", settings=hs.TrainSettings(epochs=2))
    >>> model.classes
    ('0', '1')
    """
    check_name(name)
    dataset, _ = checked(load(data))
    dataset = hold_out(dataset, holdout, seed)
    chosen = replace(settings or TrainSettings(), seed=seed)
    learned = learn_network(dataset, network=network, engine=engine, settings=chosen)
    for remark in learned.remarks:
        warnings.warn(remark, stacklevel=2)
    return learned.model.named(name)


def transfer(
    source: str | os.PathLike[str] | Model | Source | None,
    data: Any,
    *,
    layer: str | None = None,
    pooling: str | None = None,
    head: str | None = None,
    augment: str | None = None,
    balance: bool = False,
    strategy: str = "probe",
    unfreeze: str = "auto",
    allow_leaks: bool = False,
    judge: bool = True,
    holdout: float | None = None,
    unlabelled: Any = None,
    name: str | None = None,
    novelty_rate: float | str | None = None,
    precision: str | None = None,
    seed: int = 0,
    tap: str | None = None,
) -> Model:
    """Train a new head on a pretrained source.

    Parameters
    ----------
    source : str, path, Model, Source or None
        A name as ``headstart transfer`` takes it, the folder of a model, or a model. None takes ``drawings`` for
        drawings and ``photos`` for photos. Drawings of another size than a network of small grey images takes are
        prepared by the policy ``ink``, except for a Source, which is taken as it is.
    data : str, path, Dataset, data frame or iterable of (image, label)
        Images to learn from: a dataset, or what `headstart.load` takes. Its ``test`` split is not used. Or the output
        of `embed`, with None for the source; layer and pooling are then those of the features.
    layer : str, optional
        Layer to read features from. Default: selected by cross-validation; the source's own where a class has one
        image.
    pooling : {'flat', 'avg', 'grid2'}, optional
        Pooling of feature maps. Default: selected with the layer.
    head : {'kernel', 'linear', 'mlp', 'neighbours', 'prototypes', 'ridge'}, optional
        Classifier on the features. Default: ridge or kernel, selected with the layer; kernel where a class has one
        image.
    augment : str, optional
        Augmentation of the training images, such as ``"photo"`` or ``"shear=0.2,zoom=0.2"``.
    balance : bool, default=False
        Give every class the same weight, however many images it has.
    strategy : {'probe', 'finetune'}, default='probe'
        ``finetune`` unfreezes the network, and is kept only if it beats the probe on held-out images.
    unfreeze : str, default='auto'
        How much to fine-tune: ``head``, ``last``, a number of stages, ``all`` or ``auto``.
    allow_leaks : bool, default=False
        Continue although images or groups are in two splits.
    judge : bool, default=True
        Estimate the accuracy on images that were not used for training or selection, as the command does.
        It is in ``model.manifest.scores``.
    holdout : float, optional
        Share of the images to hold out as a test set, such as 0.2. `evaluate` finds them again.
    unlabelled : path, Dataset, array or list of images, optional
        Further images without labels, of the same classes: a folder in any layout, or images. Labels are propagated
        to them (Zhou et al., NIPS 2003) if that is better on left-out images. Copies of images of ``data`` are left
        out, and of many 5,000 are used.
    name : str, optional
        Name of the model, on one line. Default: made from the names of source and dataset.
    novelty_rate : float or 'off', optional
        Share of the images of the classes, in (0, 1), that may be refused as ``none of these``; ``off`` refuses none.
        Default: 0.05. `Model.with_novelty_rate` changes it later.
    precision : {'fp32', 'int8'}, optional
        Precision of the network, also of the saved model. ``int8`` takes about a third of the time; the network is
        calibrated on at most 100 of the images that are learned from. Default: fp32, or that of a model that is the
        source.
    seed : int, default=0
        Random seed. The same seed on the same machine gives the same model.
    tap : str, optional
        Older name of ``layer``.

    Returns
    -------
    Model
        The graph of the source, fine-tuned or not, with the head appended.

    Raises
    ------
    HeadstartError
        If an argument or the data is not valid; leaks are found before training.

    Examples
    --------
    >>> import headstart as hs
    >>> model = hs.transfer("pixels", "digits:0-1", head="ridge")
    >>> model.predict(hs.load("digits:0-1"))[:3].tolist()
    ['0', '1', '0']
    """
    check_name(name)
    frozen, dataset = _opened(source, data, seed)
    augmentation = None if augment is None else parse_augmentation(augment)
    probe = Probe(_layer(layer, tap), pooling, head, augmentation, balance)
    finetune, options = (
        parse_transfer(strategy, unfreeze),
        _extraction(precision),
    )
    done = run_transfer(
        frozen,
        dataset,
        probe,
        seed=seed,
        options=options,
        allow_leaks=allow_leaks,
        finetune=finetune,
        judge=judge,
        holdout=holdout,
        unlabelled=None if unlabelled is None else load_unlabelled(unlabelled),
        name=name,
        novelty_rate=novelty_rate,
    )
    return done.learned.model


def embed(
    source: str | os.PathLike[str] | Model | Source | None,
    data: Any,
    output: str | os.PathLike[str],
    *,
    layer: str | None = None,
    pooling: str | None = None,
    float16: bool = False,
    shard_size: int = SHARD_SIZE,
    precision: str | None = None,
    seed: int = 0,
) -> Embedded:
    """Write the features of every image to a Parquet table.

    The columns are ``path``, ``label``, ``split`` and ``group`` where the dataset has them, ``digest`` (SHA-256 of
    the file, or of size and pixels of an image in memory) and ``vector``. `transfer` and `study` take the file or
    folder as their data.

    Parameters
    ----------
    source : str, path, Model, Source or None
        As in `transfer`.
    data : str, path, Dataset, data frame or iterable of (image, label)
        A dataset, or what `headstart.load` takes; all of its splits are used.
    output : str or path
        A file if it ends in ``.parquet`` and all images are one shard; else a folder of files
        ``part-00000.parquet`` and so on. Files of an interrupted run of the same call are kept.
    layer : str, optional
        Layer to read. Default: the source's own.
    pooling : {'flat', 'avg', 'grid2'}, optional
        Pooling of feature maps. Default: what fits the layer.
    float16 : bool, default=False
        Write vectors as float16 rather than float32.
    shard_size : int, default=65536
        Images in a file. Memory holds the features of one file at a time.
    precision : {'fp32', 'int8'}, optional
        Precision of the network, as in `transfer`; ``int8`` is calibrated on at most 100 of all images.
    seed : int, default=0
        Draws the weights of a random source.

    Returns
    -------
    Embedded
        The files that were written or kept.

    Raises
    ------
    HeadstartError
        If an argument or the data is not valid, the output holds anything else, or pyarrow is not installed.

    Examples
    --------
    >>> import headstart as hs
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     found = hs.embed("pixels", "digits:0-1", f"{folder}/digits.parquet")
    ...     model = hs.transfer(None, found.output, head="ridge")
    >>> found.record.data.n_images, found.record.n_features, model.classes
    (360, 64, ('0', '1'))
    """
    frozen, dataset = _opened(source, data, seed)
    request = EmbedRequest(layer, pooling, float16, shard_size, seed)
    return run_embed(
        frozen, dataset, Path(output), request, options=replace(_extraction(precision), cache=None)
    )


def evaluate(
    model: str | os.PathLike[str] | Model,
    data: Any,
    *,
    split: str | None = None,
    novel: Any = None,
    seed: int = 0,
) -> Evaluated:
    """Evaluate a model on labelled images, separately from those that it learned from.

    Parameters
    ----------
    model : str, path or Model
        A model folder, or a model.
    data : str, path, Dataset, data frame or iterable of (image, label)
        A dataset, or what `headstart.load` takes. Its classes must be classes of the model; some may have no image.
    split : {'train', 'val', 'test', 'all'}, optional
        Default: ``test`` where the dataset has one, else the test set that was held out when the model was
        made, if all of it is there, else all images.
    novel : as ``data``, optional
        Images of none of the model's classes, to measure how often the answer is ``none of these``.
    seed : int, default=0
        Without effect: nothing in an evaluation is random.

    Returns
    -------
    Evaluated
        ``new`` is the accuracy on new images, ``learned`` the accuracy on images that the model learned
        from; ``evaluation`` holds the other metrics, on the images that ``about`` names.

    Raises
    ------
    HeadstartError
        If an argument or the data is not valid; the subclass names the kind.

    Warns
    -----
    UserWarning
        If no image is new to the model, or it is not known which are.

    Examples
    --------
    >>> import headstart as hs
    >>> model = hs.transfer("pixels", "digits:0-1", head="ridge", holdout=0.2)
    >>> found = hs.evaluate(model, "digits:0-1")
    >>> found.about, found.new.n, found.learned
    ('new images', 72, None)
    """
    found = run_evaluation(
        model if isinstance(model, Model) else open_model(model),
        load(data),
        split=split,
        novel=None if novel is None else load(novel),
        seed=seed,
    )
    for warning in found.warnings:
        warnings.warn(warning, stacklevel=2)
    return found


def study(
    source: str | os.PathLike[str] | Model | Source | None,
    data: Any,
    *,
    test: Any = None,
    protocol: str | None = None,
    labels_per_class: Sequence[int] | None = None,
    draws: int = 20,
    controls: Sequence[str] = CONTROLS,
    unlabelled: Any = None,
    margin: float = 1.0,
    layer: str | None = None,
    pooling: str | None = None,
    head: str | None = None,
    augment: str | None = None,
    allow_leaks: bool = False,
    strategies: Sequence[str] = ("probe",),
    unfreeze: str = "auto",
    precision: str | None = None,
    seed: int = 0,
    tap: str | None = None,
) -> Report:
    """Compare transfer with its controls: intervals, paired tests and a verdict.

    Parameters
    ----------
    source : str, path, Model, Source or None
        As in `transfer`.
    data : str, path, Dataset, data frame or iterable of (image, label)
        Images to learn from: a dataset, or what `headstart.load` takes, or the output of `embed`, as in `transfer`.
    test : as ``data``, optional
        Separate test set.
    protocol : {'holdout', 'folds', 'grouped', 'leave-one-out', 'external'}, optional
        How images are split. Default: ``external`` with ``test``, else chosen from the dataset's test split, groups
        and size, never ``leave-one-out``.
    labels_per_class : sequence of int, optional
        Labels per class in the learning curve, in addition to all. Default: 1, 5, 10 and 50, as far as the smallest
        class has so many; none with ``leave-one-out``. The verdict is about 5, else the fewest, and all.
    draws : int, default=20
        Number of random draws of labels, each tested on the same images; strategies that train a network use the
        first 5. In cross-validation there is one round of up to 20 folds, each with labels of its own.
    controls : sequence of str, optional
        Some of ``majority``, ``HOG``, ``raw pixels``, ``random frozen``, ``scratch``, ``collapse``. Default: all
        that fit.
    unlabelled : path, Dataset, array or list of images, optional
        As in `transfer`; the strategy that also learns from these is a row of its own.
    margin : float, default=1.0
        Difference in points, from 0 to 50, within which two strategies count as practically equal.
    layer, pooling, head, augment : str, optional
        As in `transfer`. What is None is selected again inside every fit.
    allow_leaks : bool, default=False
        Continue although an image is in both the training and the test set.
    strategies : sequence of str, default=('probe',)
        Strategies to compare; ``finetune`` and ``scratch`` can be added.
    unfreeze : str, default='auto'
        How much to fine-tune, as in `transfer`.
    precision : {'fp32', 'bf16', 'auto', 'int8'}, optional
        Precision of features. ``int8`` as in `transfer`, calibrated on the images that are learned from. Default:
        fp32, or that of a model that is the source.
    seed : int, default=0
        Random seed. The same seed on the same machine gives the same result.
    tap : str, optional
        Older name of ``layer``.

    Returns
    -------
    Report
        ``verdict`` is the conclusion in one sentence. Of ``comparisons`` it rests on those whose ``claim`` is True:
        their intervals hold together, at 95 %. The others are for exploration. ``headstart.report.page.render`` makes
        a page of the result.

    Raises
    ------
    HeadstartError
        If an argument or the data is not valid; leaks are found before training.

    Examples
    --------
    >>> import headstart as hs
    >>> found = hs.study("pixels", "digits:0-1", head="ridge", controls=["majority"], labels_per_class=[5])
    >>> found.comparisons[-1].verdict
    'helps'
    """
    frozen, dataset = _opened(source, data, seed)
    external = None if test is None else load(test)
    trained = source if isinstance(source, Model) else None
    if isinstance(source, str | os.PathLike) and Path(source).is_dir():
        trained = open_model(source)
    augmentation = None if augment is None else parse_augmentation(augment)
    request = StudyRequest(
        Probe(_layer(layer, tap), pooling, head, augmentation),
        protocol,
        None if labels_per_class is None else tuple(labels_per_class),
        True,
        draws,
        parse_controls(",".join(controls) or "none", ",".join(strategies)),
        allow_leaks,
        seed,
        finetune=parse_finetune(",".join(strategies), unfreeze),
        unlabelled=None if unlabelled is None else load_unlabelled(unlabelled),
        margin=margin / 100,
    )
    options = _extraction(precision)
    return run_study(frozen, dataset, request, external=external, trained=trained, options=options)


def _opened(source: Any, data: Any, seed: int) -> tuple[Source, Dataset]:
    """Source and dataset; files are prepared for the source while they are read, after a check of the order."""
    if isinstance(source, str | os.PathLike) and isinstance(data, str | os.PathLike):
        check_order(os.fspath(source), os.fspath(data))
    elif isinstance(data, Model | Source) or isinstance(source, Dataset):
        raise SettingError(
            f"source is of type {type(source).__name__} and data of type {type(data).__name__}, expected a source "
            "and a dataset; swap them"
        )
    name = os.fspath(source) if isinstance(source, str | os.PathLike) else None
    first = source.source() if isinstance(source, Model) else source
    ahead = first if isinstance(first, Source) else opened_ahead(name, seed)
    with reading(SILENT, *inputs_ahead(ahead, name)):
        dataset = load(data)
    known = embedded_source(dataset, first if isinstance(first, Source) else name)
    if known is not None:
        return known, dataset
    if ahead is not None and name is not None and dataset.images.image_shape is None:
        return with_fitting_policy(ahead, dataset), dataset
    return _source(source, dataset, seed), dataset


def _source(source: Any, dataset: Dataset, seed: int) -> Source:
    """A source by its name or folder, or from a model, with the policy that fits; a Source as it is."""
    if isinstance(source, Source):
        return source
    if isinstance(source, Model):
        return with_fitting_policy(source.source(), dataset)
    if source is None:
        source = fitting_source(dataset).name
    if isinstance(source, str | os.PathLike):
        return with_fitting_policy(open_source(os.fspath(source), dataset, seed), dataset)
    raise SettingError(
        f"source is of type {type(source).__name__}, expected the name of a source, a model folder or a model; "
        "list the names with: headstart sources"
    )


def _layer(layer: str | None, tap: str | None) -> str | None:
    """The layer, from its parameter or from the older name, which is accepted for one release."""
    if tap is None:
        return layer
    if layer is not None:
        raise SettingError("layer is given twice, expected it once; leave out its older name")
    warnings.warn("parameter tap is now called layer; write layer", FutureWarning, stacklevel=3)
    return tap


def _extraction(precision: str | None) -> Extraction:
    """How features are computed: into the user's cache, where `runner` says."""
    return Extraction(default_cache(), precision=precision, runner=current_reading().runner)
