"""The Python face: ``hs.train``, ``hs.transfer``, ``hs.evaluate``, ``hs.study``: from names to the answer.

In: names or Datasets. Out: Models, an Evaluated, a StudyResult. Called by users through the package.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from headstart.data.checks.hold_out import hold_out
from headstart.data.checks.refuse import checked
from headstart.data.dataset import Dataset
from headstart.data.images.augment import parse_augmentation
from headstart.data.readers.load import load
from headstart.models.model import Model, open_model
from headstart.records import Evaluated, StudyResult, TrainSettings
from headstart.sources.features import Extraction
from headstart.sources.registry import open_source
from headstart.strategies.finetune.options import parse_finetune, parse_transfer
from headstart.strategies.places import Probe
from headstart.strategies.scratch import learn_network
from headstart.system.cache import default_cache
from headstart.workflows.evaluate import run_evaluation
from headstart.workflows.study.run import CONTROLS, Wanted, parse_controls, run_study
from headstart.workflows.transfer.run import run_transfer

__all__ = ["evaluate", "study", "train", "transfer"]


def train(
    data: str | Dataset,
    *,
    network: str = "cnn",
    engine: str = "torch",
    settings: TrainSettings | None = None,
    holdout: float | None = None,
    seed: int = 0,
) -> Model:
    """Train a network from nothing.

    Parameters
    ----------
    data : str or Dataset
        A name as ``headstart train`` takes it, or a dataset. Its ``test`` split is not looked at.
    network : {'cnn', 'mlp', 'mlp-wide'}, default='cnn'
        What to train.
    engine : {'torch', 'scratch'}, default='torch'
        What trains it.
    settings : TrainSettings, optional
        Default: five epochs of Adam.
    holdout : float, optional
        Share of the images to hold out as a test set, such as 0.2; `evaluate` finds them again.
    seed : int, default=0
        Same seed, same machine, same model.

    Returns
    -------
    Model
        Save it with ``model.save(folder)``.

    Raises
    ------
    HeadstartError
        Of the kind that fits.

    Warns
    -----
    UserWarning
        If training diverged, or the model is not significantly better than the commonest class.

    Examples
    --------
    >>> import headstart as hs
    >>> model = hs.train("digits:0-1", network="mlp", engine="scratch", settings=hs.TrainSettings(epochs=2))
    >>> model.classes
    ('0', '1')
    """
    dataset, _ = checked(load(data) if isinstance(data, str) else data)
    dataset = hold_out(dataset, holdout, seed)
    chosen = replace(settings or TrainSettings(), seed=seed)
    learnt = learn_network(dataset, network=network, engine=engine, settings=chosen)
    for remark in learnt.remarks:
        warnings.warn(remark, stacklevel=2)
    return learnt.model


def transfer(
    source: str | Model,
    data: str | Dataset,
    *,
    tap: str | None = None,
    pooling: str | None = None,
    head: str | None = None,
    augment: str | None = None,
    balance: bool = False,
    strategy: str = "probe",
    unfreeze: str = "auto",
    allow_leaks: bool = False,
    judge: bool = True,
    holdout: float | None = None,
    seed: int = 0,
) -> Model:
    """Teach a frozen source new classes.

    Parameters
    ----------
    source : str or Model
        A name as ``headstart transfer`` takes it, or a model.
    data : str or Dataset
        What to learn. Its ``test`` split is not looked at.
    tap : str, optional
        Where features are read. Default: chosen by cross-validation where the source has candidates
        (networks of timm), else the source's own.
    pooling : {'flat', 'avg', 'grid2'}, optional
        How maps become a row of features. Default: chosen with the tap, else ``flat``.
    head : {'kernel', 'linear', 'mlp', 'neighbours', 'prototypes', 'ridge'}, optional
        What is fitted on the features. Default: chosen with the tap, else ``linear``.
    augment : str, optional
        Views to learn from beside the images, such as ``"photo"`` or ``"shear=0.2,zoom=0.2"``.
    balance : bool, default=False
        Let every class count alike, however many images it has.
    strategy : {'probe', 'finetune'}, default='probe'
        ``finetune`` opens the network, and keeps that only where it beats the probe on images held out.
    unfreeze : str, default='auto'
        How far: ``head``, ``last``, a number of parts, ``all`` or ``auto``.
    allow_leaks : bool, default=False
        Go on with images or groups that are in two splits.
    judge : bool, default=True
        Measure its accuracy on images that nothing was learned from or selected on, as the command does;
        it is in ``model.manifest.scores``. Without, the model is made and nothing is known of it.
    holdout : float, optional
        Share of the images to hold out as a test set, such as 0.2; `evaluate` finds them again.
    seed : int, default=0
        Same seed, same machine, same model.

    Returns
    -------
    Model
        The source's graph, trained further or not, with the head appended.

    Raises
    ------
    HeadstartError
        Of the kind that fits; a leak before anything is learned.

    Examples
    --------
    >>> import headstart as hs
    >>> model = hs.transfer("pixels", "digits:0-1", head="ridge")
    >>> model.predict(hs.load("digits:0-1"))[:3].tolist()
    ['0', '1', '0']
    """
    dataset = load(data) if isinstance(data, str) else data
    frozen = source.source() if isinstance(source, Model) else open_source(source, dataset, seed)
    augmentation = None if augment is None else parse_augmentation(augment)
    probe = Probe(tap, pooling, head, augmentation, balance)
    opening, options = parse_transfer(strategy, unfreeze), Extraction(default_cache())
    done = run_transfer(
        frozen,
        dataset,
        probe,
        seed=seed,
        options=options,
        allow_leaks=allow_leaks,
        opening=opening,
        judge=judge,
        holdout=holdout,
    )
    return done.learnt.model


def evaluate(
    model: str | Path | Model,
    data: str | Dataset,
    *,
    split: str | None = None,
    novel: str | Dataset | None = None,
    seed: int = 0,
) -> Evaluated:
    """Measure a model on labelled images, those it learned from apart.

    Parameters
    ----------
    model : str, Path or Model
        A model folder, or a model.
    data : str or Dataset
        As ``headstart evaluate`` takes it. Its classes must be classes of the model; some may have no image.
    split : {'train', 'val', 'test', 'all'}, optional
        Default: ``test`` where the dataset has one, else the test set that was held out when the model was
        made, if all of it is there, else all images.
    novel : str or Dataset, optional
        Images of none of the model's classes: are they recognised as such?
    seed : int, default=0
        Of the bootstrap behind some intervals.

    Returns
    -------
    Evaluated
        ``new`` and ``learned`` are the accuracies on images that the model did not learn from and on those
        that it did; ``evaluation`` holds the details, about the images that ``about`` names.

    Raises
    ------
    HeadstartError
        Of the kind that fits.

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
        load(data) if isinstance(data, str) else data,
        split=split,
        novel=load(novel) if isinstance(novel, str) else novel,
        seed=seed,
    )
    for warning in found.warnings:
        warnings.warn(warning, stacklevel=2)
    return found


def study(
    source: str | Model,
    data: str | Dataset,
    *,
    test: str | Dataset | None = None,
    protocol: str | None = None,
    labels_per_class: Sequence[int] | None = None,
    draws: int = 5,
    controls: Sequence[str] = CONTROLS,
    tap: str | None = None,
    pooling: str | None = None,
    head: str | None = None,
    augment: str | None = None,
    allow_leaks: bool = False,
    strategies: Sequence[str] = ("probe",),
    unfreeze: str = "auto",
    seed: int = 0,
) -> StudyResult:
    """Find out whether transfer is worth it, and how far one may trust the answer.

    Parameters
    ----------
    source : str or Model
        A name as ``headstart study`` takes it, or a model.
    data : str or Dataset
        What to learn.
    test : str or Dataset, optional
        A test set of its own.
    protocol : {'holdout', 'folds', 'grouped', 'leave-one-out', 'external'}, optional
        How images are parted. Default: by rule from the size of the data.
    labels_per_class : sequence of int, optional
        Budgets of the learning curve beside all labels. Default: 1, 5, 10, 50; none for few images.
    draws : int, default=5
        Draws of labels; repeats of the folds.
    controls : sequence of str, optional
        Some of ``majority``, ``raw pixels``, ``random frozen``, ``scratch``, ``collapse``. Default: all
        that fit.
    tap, pooling, head, augment : str, optional
        As in `transfer`; what is left out is chosen anew inside every fit.
    allow_leaks : bool, default=False
        Go on though an image is learnt from and judged by.
    strategies : sequence of str, default=('probe',)
        ``finetune`` beside it, ``scratch`` too.
    unfreeze : str, default='auto'
        How far fine-tuning opens the network, as in `transfer`.
    seed : int, default=0
        Same seed, same machine, same result.

    Returns
    -------
    StudyResult
        ``verdict`` is the answer in a sentence; ``report.page.render`` makes a page of it.

    Raises
    ------
    HeadstartError
        Of the kind that fits; a leak before any number is computed.

    Examples
    --------
    >>> import headstart as hs
    >>> found = hs.study("pixels", "digits:0-1", head="ridge", controls=["majority"], labels_per_class=[5])
    >>> found.comparisons[-1].verdict
    'helps'
    """
    dataset = load(data) if isinstance(data, str) else data
    external = load(test) if isinstance(test, str) else test
    trained = source if isinstance(source, Model) else None
    if isinstance(source, str) and Path(source).is_dir():
        trained = open_model(source)
    frozen = source.source() if isinstance(source, Model) else open_source(source, dataset, seed)
    augmentation = None if augment is None else parse_augmentation(augment)
    wanted = Wanted(
        Probe(tap, pooling, head, augmentation),
        protocol,
        None if labels_per_class is None else tuple(labels_per_class),
        True,
        draws,
        parse_controls(",".join(controls) or "none", ",".join(strategies)),
        allow_leaks,
        seed,
        opening=parse_finetune(",".join(strategies), unfreeze),
    )
    options = Extraction(default_cache())
    return run_study(frozen, dataset, wanted, external=external, trained=trained, options=options)
