"""The protocol of a study, fixed before anything is learned: training and test images of every round."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from headstart.data.dataset import Dataset
from headstart.data.splits import fewest_per_class, folds, holdout, nested_subsets
from headstart.errors import DataError, SettingError, nearest
from headstart.evaluation.clusters import repeated

__all__ = [
    "KINDS",
    "EvaluationSetup",
    "Protocol",
    "TrainTest",
    "crossed_protocol",
    "decide",
    "rounds_of",
    "shared_labels",
    "smallest_class",
]

KINDS = ("holdout", "folds", "grouped", "leave-one-out", "external")
"""``holdout``: a test set used once, at the end. ``folds``: repeated stratified cross-validation. ``grouped``: the
same, whole groups left out. ``leave-one-out``. ``external``: a test set of its own."""

_LEAST_TEST = 200  # fewer test images give an interval too wide to hold images out for
_TEST_SHARE = 0.2
_FOLDS = 10  # each model learns from nine tenths, so that figures are about models like the one that is saved
_FEW_FOLDS = 20  # for few labels: every fold draws its own, so there are as many draws
_ROUNDS = 3  # of folds with all labels; more would make intervals hardly narrower: the images are the same

Indices = NDArray[np.intp]


@dataclass(frozen=True)
class TrainTest:
    """One split: indices into the pool to train on, and into the test images."""

    train: Indices
    test: Indices


@dataclass(frozen=True)
class Protocol:
    """Budgets of labels, draws of each, the seed, and how the images are split.

    ``with_all`` adds a last budget, all labels. ``shown`` names strategies that stand in the table without a
    comparison; ``redrawn`` those whose frozen weights are drawn again in every round (``networks`` of them
    where there is one round), which a comparison must allow for. ``pairs`` are further comparisons. ``kind``
    is one of `KINDS`; ``n_folds`` above 0 means cross-validation of the pool, with whole clusters of images.
    ``slow`` names strategies that run on the first ``slow_draws`` rounds only; differences within ``margin`` count as
    practically none.
    """

    labels_per_class: tuple[int, ...] = (1, 5, 10, 50)
    draws: int = 20
    seed: int = 0
    with_all: bool = True
    shown: tuple[str, ...] = ("textbook probe",)
    redrawn: tuple[str, ...] = ()
    networks: int = 5
    pairs: tuple[tuple[str, str], ...] = ()
    kind: str = "holdout"
    n_folds: int = 0
    slow: tuple[str, ...] = ()
    slow_draws: int = 5
    margin: float = 0.01

    @property
    def crossed(self) -> bool:
        """Whether the pool is cross-validated."""
        return self.n_folds > 0


def crossed_protocol(pool: Dataset, most_folds: int, seed: int) -> Protocol | None:
    """All labels, in at most that many folds of whole clusters; None if a class has one cluster only."""
    if fewest_per_class(pool.labels, pool.cluster_codes) < 2:
        return None
    n_clusters = len(pool) if pool.cluster_codes is None else len(np.unique(pool.cluster_codes))
    kind = "folds" if pool.groups is None else "grouped"
    return Protocol((), 1, seed, kind=kind, n_folds=min(most_folds, n_clusters))


@dataclass(frozen=True)
class EvaluationSetup:
    """A protocol and its images: ``pool`` to train on, ``test`` to test on; one dataset when cross-validated.

    ``sentence`` describes all of this for a report.
    """

    protocol: Protocol
    pool: Dataset
    test: Dataset
    sentence: str

    @property
    def judged_on(self) -> str:
        """What kind of images the figures are about, as an adjective before "images"."""
        words = {"holdout": "test", "external": "external test"}
        return words.get(self.protocol.kind, "cross-validated")


def decide(
    dataset: Dataset,
    external: Dataset | None = None,
    *,
    kind: str | None = None,
    protocol: Protocol = Protocol(),
) -> EvaluationSetup:
    """Choose the protocol from the size of the data, unless ``kind`` names one.

    An external test set is used whatever its size. Else a test split of at least 200 images (the dataset's
    own, or a stratified fifth); else cross-validation, of whole groups where images have groups, in 10 folds or as
    many as the smallest class has images, so that every fold leaves out as much of each class. A test split of fewer
    than 200 images is pooled with the others, because its interval alone would be wide. Raises `SettingError` if the
    kind does not fit the data, `DataError` if a class has too few images or groups to split.
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
    pool: Dataset, n_test: int, budgets: Sequence[int], protocol: Protocol
) -> dict[int | None, list[list[TrainTest]]]:
    """All splits by budget (None is all labels) and round; within a round each test image occurs once.

    Smaller draws are subsets of larger ones. With a holdout or leave-one-out, all labels are one round. With
    folds, few labels are one round of up to 20 folds, each with labels of its own.
    """
    found: dict[int | None, list[list[TrainTest]]] = {budget: [] for budget in budgets}
    once = not protocol.crossed or protocol.kind == "leave-one-out"
    drawing = _drawing(pool, protocol)
    for number in range((1 if protocol.crossed else protocol.draws) if budgets else 0):
        whole = _folded(pool, n_test, drawing, number)
        drawn: dict[int, list[TrainTest]] = {budget: [] for budget in budgets}
        for part, one in enumerate(whole):
            rng = np.random.default_rng([protocol.seed, 6, number, *([part] if protocol.crossed else [])])
            subsets = nested_subsets(pool.labels[one.train], budgets, seed=rng)
            for budget in budgets:
                drawn[budget].append(TrainTest(one.train[subsets[budget]], one.test))
        for budget in budgets:
            found[budget].append(drawn[budget])
    if protocol.with_all:
        n_rounds = 1 if once else min(_ROUNDS, protocol.draws)
        found[None] = [_folded(pool, n_test, protocol, number) for number in range(n_rounds)]
    return found


def smallest_class(pool: Dataset, protocol: Protocol) -> int:
    """Training images of the rarest class, the minimum over all splits."""
    n_rounds = min(_ROUNDS, protocol.draws) if protocol.crossed else 1
    rounds = [_folded(pool, 0, protocol, number) for number in range(n_rounds)]
    rounds.append(_folded(pool, 0, _drawing(pool, protocol), 0))
    codes, n_classes = pool.codes(), len(pool.classes)
    return min(
        int(np.bincount(codes[one.train], minlength=n_classes).min()) for each in rounds for one in each
    )


def shared_labels(rounds: Sequence[Sequence[TrainTest]]) -> float:
    """The share of training images that two draws of labels have in common on average, at most 0.95."""
    draws = [part.train for one in {id(one): one for one in rounds}.values() for part in one]
    if len(draws) < 2:
        return 0.0
    members = np.zeros((len(draws), 1 + max(int(one.max()) for one in draws)), np.float32)
    for row, one in zip(members, draws, strict=True):
        row[one] = 1 / np.sqrt(len(one))
    among = members @ members.T
    return min(0.95, float((among.sum() - np.trace(among)) / (len(draws) * (len(draws) - 1))))


def _drawing(pool: Dataset, protocol: Protocol) -> Protocol:
    """The protocol for few labels: of a cross-validation more folds, each with labels of its own."""
    if not protocol.crossed or protocol.kind == "leave-one-out":
        return protocol
    return replace(protocol, n_folds=_draw_folds(pool, protocol))


def _draw_folds(pool: Dataset, protocol: Protocol) -> int:
    """Folds for few labels: 20, or as many as there are clusters."""
    n_clusters = len(pool) if pool.cluster_codes is None else len(np.unique(pool.cluster_codes))
    return max(protocol.n_folds, min(_FEW_FOLDS, n_clusters))


def _folded(pool: Dataset, n_test: int, protocol: Protocol, number: int) -> list[TrainTest]:
    """The splits of one round with all labels."""
    if not protocol.crossed:
        return [TrainTest(np.arange(len(pool)), np.arange(n_test))]
    rng = np.random.default_rng([protocol.seed, 8, number])
    return [TrainTest(*one) for one in folds(pool.labels, protocol.n_folds, rng, pool.cluster_codes)]


def _by_rule(dataset: Dataset, external: Dataset | None) -> str:
    if external is not None:
        return "external"
    n_test = int((dataset.splits == "test").sum()) if dataset.splits is not None else 0
    if dataset.groups is not None and n_test < _LEAST_TEST:  # a small test split is pooled, by groups
        return "grouped"
    if n_test >= _LEAST_TEST or (not n_test and len(dataset) * _TEST_SHARE >= _LEAST_TEST):
        return "holdout"
    return "folds"


def _external(dataset: Dataset, external: Dataset | None, protocol: Protocol) -> EvaluationSetup:
    if external is None:
        raise SettingError("protocol is 'external', expected a test set; name one with --test")
    pool = dataset if dataset.splits is None else dataset.subset(dataset.splits != "test")
    groups = "" if external.groups is None else f" by {len(set(external.groups.tolist()))} groups"
    sentence = (
        f"Trained on {len(pool):,} images of {pool.name}, tested on {len(external):,} images{groups} of "
        f"{external.name}, which were used once, at the end. {_rests_on(external, protocol)}"
    )
    return EvaluationSetup(replace(protocol, kind="external"), pool, external, sentence)


def _held_out(dataset: Dataset, protocol: Protocol) -> EvaluationSetup:
    own = dataset.splits is not None and "test" in set(dataset.splits.tolist())
    if own:
        assert dataset.splits is not None
        pool, test = dataset.subset(dataset.splits != "test"), dataset.split("test")
    else:
        rest, held = holdout(dataset.labels, _TEST_SHARE, protocol.seed, dataset.cluster_codes)
        pool, test = dataset.subset(rest), dataset.subset(held)
    which = "the dataset's own test split" if own else f"a stratified {_TEST_SHARE:.0%}, held out at random"
    which += _new_groups(pool, test)
    sentence = (
        f"Trained on {len(pool):,} images, tested on {len(test):,} others ({which}), which were used "
        f"once, at the end. {_rests_on(test, protocol)}"
    )
    return EvaluationSetup(replace(protocol, kind="holdout"), pool, test, sentence)


def _new_groups(pool: Dataset, test: Dataset) -> str:
    """Say how many groups are tested on, where none of them is trained on."""
    if pool.groups is None or test.groups is None:
        return ""
    groups = set(test.groups.tolist())
    new = groups.isdisjoint(pool.groups)
    return f"; {len(groups)} groups, none of them in the training images" if new else ""


def _crossed(dataset: Dataset, kind: str, protocol: Protocol) -> EvaluationSetup:
    pool = dataset if dataset.splits is None else replace(dataset, splits=None)
    smallest = fewest_per_class(pool.labels, pool.cluster_codes)
    if kind == "grouped":
        n_folds, of = _group_folds(pool), " of whole groups"
    elif kind == "leave-one-out":
        n_folds, of = len(pool) if pool.cluster_codes is None else len(np.unique(pool.cluster_codes)), ""
    else:
        n_folds, of = max(2, min(_FOLDS, smallest)), ""
    protocol = replace(protocol, kind=kind, n_folds=n_folds)
    splits = "" if dataset.splits is None else ", its splits pooled,"
    images = f"{len(pool):,} images of {pool.name}{splits}"
    if kind == "leave-one-out":
        sentence = f"Each of the {images} was classified by a model trained on all the others. "
    else:
        folds_text = _folds_text(pool, protocol, of)
        sentence = (
            f"The {images} were split into {folds_text}; each image was classified by models trained on the other "
            "folds only. "
        )
    return EvaluationSetup(protocol, pool, pool, sentence + _rests_on(pool, protocol))


def _folds_text(pool: Dataset, protocol: Protocol, of: str) -> str:
    """How often and into how many folds images are split, for all labels and for few."""
    times, few = (
        min(_ROUNDS, protocol.draws),
        f"{_draw_folds(pool, protocol)} folds{of}, each with labels of its own",
    )
    if not protocol.with_all and protocol.labels_per_class:
        return few
    found = f"{protocol.n_folds} folds{of}, {times} time{'s' if times > 1 else ''}"
    return f"{found}, and for few labels into {few}" if protocol.labels_per_class else found


def _group_folds(pool: Dataset) -> int:
    if pool.groups is None:
        raise SettingError(
            f"protocol is 'grouped' and dataset {pool.name!r} has no groups, expected a column group or "
            "writer; add one, or choose folds"
        )
    assert pool.cluster_codes is not None, "groups stay together"
    by_class = [len(np.unique(pool.cluster_codes[pool.labels == name])) for name in pool.classes]
    if min(by_class) < 2:
        lonely = pool.classes[int(np.argmin(by_class))]
        raise DataError(
            f"class {lonely!r} of dataset {pool.name!r} comes from one group, expected two, one to "
            "train on and one to test on; add images of another, or leave the group column out"
        )
    return max(2, min(_FOLDS, *by_class))


def _rests_on(test: Dataset, protocol: Protocol) -> str:
    """What intervals and tests are about, and how they are computed."""
    few = bool(protocol.labels_per_class)
    if repeated(test.cluster_codes):
        why = (
            "Some images are copies of others, and an image with its copies counts as one"
            if test.groups is None
            else "Images of one group resemble each other, so intervals and tests count groups"
        )
        tests = (
            "Wilson's intervals on the effective number of images, and a t-test that is robust to clusters"
        )
        return f"{why}: {tests}."
    if protocol.crossed:
        found = (
            "Intervals and tests are about this procedure on new images: Wilson's intervals for two thirds of the "
            "images, because the models share training images, and a t-test over images."
        )
        return f"{found} For few labels they are computed from the folds." if few else found
    found = "Intervals and tests are about these models on new images: Wilson's intervals and McNemar's mid-p test."
    if not few:
        return found
    return (
        f"With all labels, {found[0].lower()}{found[1:]} With few labels they are about the procedure on new labels "
        "and new images, and count both draws of labels and images."
    )
