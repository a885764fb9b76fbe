"""Who learns from which images and who is judged by which: the protocol of a study.

In: datasets, and what the user wants. Out: a Protocol, the images it is about, and a sentence that says
it. Must not import a head or an engine: parting comes before learning. Called by controls, comparison,
studies and recipes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from headstart.data.dataset import Dataset
from headstart.data.splits import fewest_per_class, folds, holdout, nested_subsets
from headstart.errors import DataError, SettingError, nearest
from headstart.evaluation.clusters import repeated

__all__ = ["KINDS", "Judging", "Protocol", "TrainTest", "decide", "rounds_of", "smallest_class"]

KINDS = ("holdout", "folds", "grouped", "leave-one-out", "external")
"""``holdout``: a test part opened once. ``folds``: repeated stratified cross-validation. ``grouped``: the
same, whole groups left out. ``leave-one-out``. ``external``: a test set of its own."""

_FEW = 50  # images up to which one is left out at a time
_LEAST_TEST = 200  # test images below which an interval is too wide to hold images back for
_TEST_SHARE = 0.2
_FOLDS = 5
_ROUNDS = 2  # of folds for few labels, at the usual five draws: one leaves a t-test four degrees of freedom

Indices = NDArray[np.intp]


@dataclass(frozen=True)
class TrainTest:
    """Places among the pool to learn from, and places among the images asked to answer."""

    learn: Indices
    asked: Indices


@dataclass(frozen=True)
class Protocol:
    """Which budgets of labels are tried, how many draws of each, from which seed, judged how.

    ``with_all`` adds a last budget, all labels. ``shown`` names strategies that stand in the table and
    are not compared with the probe; ``redrawn`` those whose frozen weights are drawn afresh in every
    round (``networks`` of them where there is one round), which a comparison must allow for. ``pairs`` are
    further comparisons, of a strategy with another. ``kind`` is one of `KINDS`; with ``n_folds`` the pool
    is judged by itself, whole clusters of its images together.
    """

    labels_per_class: tuple[int, ...] = (1, 5, 10, 50)
    draws: int = 5
    seed: int = 0
    with_all: bool = True
    shown: tuple[str, ...] = ("textbook probe",)
    redrawn: tuple[str, ...] = ()
    networks: int = 5
    pairs: tuple[tuple[str, str], ...] = ()
    kind: str = "holdout"
    n_folds: int = 0

    @property
    def crossed(self) -> bool:
        """Whether the pool is judged by itself, in folds."""
        return self.n_folds > 0


@dataclass(frozen=True)
class Judging:
    """A protocol and the images it is about: ``pool`` to learn from, ``asked`` to be judged by.

    With cross-validation the two are the same dataset. ``sentence`` says all of this to a reader.
    """

    protocol: Protocol
    pool: Dataset
    asked: Dataset
    sentence: str

    @property
    def judged_on(self) -> str:
        """What the figures are about, as a word before "images"."""
        words = {"holdout": "test", "external": "external test"}
        return words.get(self.protocol.kind, "cross-validated")


def decide(
    dataset: Dataset,
    external: Dataset | None = None,
    *,
    kind: str | None = None,
    protocol: Protocol = Protocol(),
) -> Judging:
    """Choose how a study is judged, by rule from the size of the data.

    Parameters
    ----------
    dataset : Dataset
        All of it, with its splits.
    external : Dataset, optional
        A test set of its own: the figures are about it, whatever its size.
    kind : {'holdout', 'folds', 'grouped', 'leave-one-out', 'external'}, optional
        Default, by rule: the external set where there is one; a test part of at least 200 images
        (the dataset's own, or a stratified fifth); else cross-validation, with whole groups left out
        where images have groups, one image left out at a time up to 50 images, else five folds.
    protocol : Protocol, optional
        Budgets, draws and seed; the rest is filled in.

    Returns
    -------
    Judging

    Raises
    ------
    SettingError
        If the kind is unknown, or does not fit the data.
    DataError
        If a class has too few images or groups to be parted.

    Notes
    -----
    A split called ``test`` of fewer than 200 images is pooled with the others: it comes from the same
    place, and its interval alone would be wide. An external set never is.
    """
    if kind is not None and kind not in KINDS:
        raise SettingError(
            f"protocol is {kind!r}, expected one of {', '.join(KINDS)}; {nearest(kind, KINDS)}"
        )
    chosen = kind or _by_rule(dataset, external)
    if chosen == "external":
        return _external(dataset, external, protocol)
    if external is not None:
        raise SettingError(
            f"protocol is {chosen!r} and a test set is given, expected 'external' with one; leave either out"
        )
    if chosen == "holdout":
        return _held_out(dataset, protocol)
    return _crossed(dataset, chosen, protocol)


def rounds_of(
    pool: Dataset, n_asked: int, budgets: Sequence[int], protocol: Protocol
) -> dict[int | None, list[list[TrainTest]]]:
    """Every round of every budget; within a round each asked image is answered once.

    Parameters
    ----------
    pool : Dataset
        Images to draw from.
    n_asked : int
        Images to answer.
    budgets : sequence of int
        Labels per class.
    protocol : Protocol
        How many draws, from which seed, in which folds, and whether all labels are a budget too.

    Returns
    -------
    dict of (int or None) to list of list of TrainTest
        None is all labels. The smaller draws lie within the larger; with a holdout, and with one image
        left out at a time, all labels are one round. With folds, each draws labels of its own.
    """
    found: dict[int | None, list[list[TrainTest]]] = {budget: [] for budget in budgets}
    once = not protocol.crossed or protocol.kind == "leave-one-out"
    # every fold draws labels of its own, so two rounds of five folds are ten draws
    n_drawn = -(-_ROUNDS * protocol.draws // protocol.n_folds) if protocol.crossed else protocol.draws
    for number in range(n_drawn if budgets else 0):
        whole = _folded(pool, n_asked, protocol, number)
        drawn: dict[int, list[TrainTest]] = {budget: [] for budget in budgets}
        for part, one in enumerate(whole):
            rng = np.random.default_rng([protocol.seed, 6, number, *([part] if protocol.crossed else [])])
            subsets = nested_subsets(pool.labels[one.learn], budgets, seed=rng)
            for budget in budgets:
                drawn[budget].append(TrainTest(one.learn[subsets[budget]], one.asked))
        for budget in budgets:
            found[budget].append(drawn[budget])
    if protocol.with_all:
        n_rounds = 1 if once else protocol.draws
        found[None] = [_folded(pool, n_asked, protocol, number) for number in range(n_rounds)]
    return found


def smallest_class(pool: Dataset, protocol: Protocol) -> int:
    """Images of the scarcest class among those that any parting learns from, with all labels."""
    n_rounds = protocol.draws if protocol.crossed else 1
    rounds = [_folded(pool, 0, protocol, number) for number in range(n_rounds)]
    codes, n_classes = pool.codes(), len(pool.classes)
    return min(
        int(np.bincount(codes[one.learn], minlength=n_classes).min()) for each in rounds for one in each
    )


def _folded(pool: Dataset, n_asked: int, protocol: Protocol, number: int) -> list[TrainTest]:
    """The partings of one round with all labels."""
    if not protocol.crossed:
        return [TrainTest(np.arange(len(pool)), np.arange(n_asked))]
    rng = np.random.default_rng([protocol.seed, 8, number])
    return [TrainTest(*one) for one in folds(pool.labels, protocol.n_folds, rng, pool.together)]


def _by_rule(dataset: Dataset, external: Dataset | None) -> str:
    if external is not None:
        return "external"
    n_test = int((dataset.splits == "test").sum()) if dataset.splits is not None else 0
    if dataset.groups is not None and n_test < _LEAST_TEST:  # a small test split is pooled, by groups
        return "grouped"
    if n_test >= _LEAST_TEST or (not n_test and len(dataset) * _TEST_SHARE >= _LEAST_TEST):
        return "holdout"
    return "leave-one-out" if len(dataset) <= _FEW else "folds"


def _external(dataset: Dataset, external: Dataset | None, protocol: Protocol) -> Judging:
    if external is None:
        raise SettingError("protocol is 'external', expected a test set; name one with --test")
    pool = dataset if dataset.splits is None else dataset.subset(dataset.splits != "test")
    groups = "" if external.groups is None else f" by {len(set(external.groups.tolist()))} groups"
    said = (
        f"Trained on {len(pool):,} images of {pool.name}, tested on {len(external):,} images{groups} of "
        f"{external.name}, which were used once, at the end. {_rests_on(external)}"
    )
    return Judging(replace(protocol, kind="external"), pool, external, said)


def _held_out(dataset: Dataset, protocol: Protocol) -> Judging:
    own = dataset.splits is not None and "test" in set(dataset.splits.tolist())
    if own:
        assert dataset.splits is not None
        pool, asked = dataset.subset(dataset.splits != "test"), dataset.split("test")
    else:
        rest, held = holdout(dataset.labels, _TEST_SHARE, protocol.seed, dataset.together)
        pool, asked = dataset.subset(rest), dataset.subset(held)
    which = "the dataset's own test split" if own else f"a stratified {_TEST_SHARE:.0%} held out by the seed"
    which += _new_groups(pool, asked)
    said = (
        f"Trained on {len(pool):,} images, tested on {len(asked):,} others ({which}), which were used "
        f"once, at the end. {_rests_on(asked)}"
    )
    return Judging(replace(protocol, kind="holdout"), pool, asked, said)


def _new_groups(pool: Dataset, asked: Dataset) -> str:
    """Say how many groups judge, where none of them is learnt from."""
    if pool.groups is None or asked.groups is None:
        return ""
    judging = set(asked.groups.tolist())
    new = judging.isdisjoint(pool.groups)
    return f"; {len(judging)} groups, none of them in the training images" if new else ""


def _crossed(dataset: Dataset, kind: str, protocol: Protocol) -> Judging:
    pool = dataset if dataset.splits is None else replace(dataset, splits=None)
    smallest = fewest_per_class(pool.labels, pool.together)
    if kind == "grouped":
        n_folds, what = _group_folds(pool), "groups"
    elif kind == "leave-one-out":
        n_folds, what = len(pool) if pool.together is None else len(np.unique(pool.together)), "image"
    else:
        n_folds, what = max(2, min(_FOLDS, smallest)), "images"
    protocol = replace(protocol, kind=kind, n_folds=n_folds)
    splits = "" if dataset.splits is None else ", its splits pooled,"
    if kind == "leave-one-out":
        said = (
            f"Each of the {len(pool):,} images of {pool.name}{splits} was classified by a model trained "
            "on all the others. "
        )
    else:
        said = (
            f"The {len(pool):,} images of {pool.name}{splits} were split into {n_folds} folds of whole "
            f"{what}, {protocol.draws} times; each image was classified by models trained on the other "
            "folds only. "
        )
    return Judging(protocol, pool, pool, said + _rests_on(pool, kind))


def _group_folds(pool: Dataset) -> int:
    if pool.groups is None:
        raise SettingError(
            f"protocol is 'grouped' and dataset {pool.name!r} has no groups, expected a column group or "
            "writer; add one, or choose folds"
        )
    assert pool.together is not None, "groups stay together"
    by_class = [len(np.unique(pool.together[pool.labels == name])) for name in pool.classes]
    if min(by_class) < 2:
        lonely = pool.classes[int(np.argmin(by_class))]
        raise DataError(
            f"class {lonely!r} of dataset {pool.name!r} comes from one group, expected two, one to "
            "train on and one to test on; add images, or choose folds"
        )
    return max(2, min(_FOLDS, *by_class))


def _rests_on(asked: Dataset, kind: str = "") -> str:
    """What intervals and p-values are made of."""
    if repeated(asked.together):
        why = (
            "Copies of one image count as one group"
            if asked.groups is None
            else "Images of one group resemble each other"
        )
        return (
            f"{why}, so intervals and tests count groups: Wilson's on the effective number of images, and a "
            "cluster-robust t. p-values are Holm's."
        )
    if kind in ("folds", "leave-one-out"):
        return "Intervals are Wilson's; differences by the corrected resampled t-test; p-values are Holm's."
    return (
        "Intervals are Wilson's; differences on the same images by exact McNemar, over several draws of "
        "labels by a t-test that counts both images and draws; p-values are Holm's."
    )
