"""A head that learns from images without labels, too: their labels are propagated along nearest neighbours."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.heads.base import Builder, Head, Watch
from headstart.heads.held_out import HeldOut
from headstart.heads.scaling import UnitRows, append_unit_rows, unit_rows
from headstart.heads.training import Training, one_hot
from headstart.records import Array

__all__ = ["PropagationHead", "left_out"]

Rows = NDArray[np.intp]

_NEIGHBOURS = 10
_ALPHA = 0.9  # share of a row's scores that comes from its neighbours
_POWER = 4.0  # of the similarity, as a weight: far neighbours count little
_STEPS = 60  # 0.9 to this power is 0.002
_BLOCK = 1_024
_LEAST = 1e-6  # of a similarity, or of a sum of them
_PRIOR = 1e-9  # added to the scores of every class: a row that no label reaches has equal shares
_JUDGED = 250  # images that are left out in turn


class PropagationHead(Head):
    """Shares of the classes of the 10 nearest images, labelled or not, whose labels were propagated.

    Zhou et al., Learning with Local and Global Consistency, NIPS 2003: scores F solve F = alpha S F + Y, with S the
    symmetrically normalised weights of a graph of 10 neighbours by cosine similarity, Y the known labels. A new
    image has the mean of its neighbours' normalised scores, weighted by similarity (Delalleau, Bengio, Le Roux,
    Efficient Non-Parametric Function Induction in Semi-Supervised Learning, AISTATS 2005). ``unlabelled`` are
    features (n_images, n_features), float32.
    """

    name = "propagation"

    def __init__(self, unlabelled: Array) -> None:
        self.unlabelled = unlabelled
        self._kept: tuple[Training, Any] | None = None

    @property
    def n_features(self) -> int:
        """Number of features per row that the head was fitted on."""
        return int(self.rows_.shape[1])

    def learn(self, training: Training, classes: tuple[str, ...]) -> None:
        """As `fit`, on the same training set as `held_out`, whose graph is not computed again."""
        self.classes_, self.chosen_, self.curve_ = classes, {}, None
        self._fit(training, None)

    def _fit(self, training: Training, watch: Watch | None) -> None:
        graph, targets = self._graph(training), _targets(training)
        known = np.zeros((len(self.rows_), targets.shape[1]), np.float32)
        known[: len(targets)] = targets
        self.shares_ = _shares(_propagated(graph, known))
        self.chosen_ = {"neighbours": float(self._n_near), "images": float(len(self.rows_))}

    def held_out(self, training: Training) -> HeldOut | None:
        """Shares of the labelled images that `left_out` names, from the labels outside their clusters; exact.

        None where a class has one cluster only. The other images have equal shares.
        """
        if training.smallest_class < 2:
            return None
        graph, targets, units = self._graph(training), _targets(training), _units(training)
        judged = left_out(training)
        taken = np.flatnonzero(np.isin(units, units[judged]))  # images whose labels are taken away in turn
        sources = np.zeros((len(self.rows_), targets.shape[1] + len(taken)), np.float32)
        sources[: len(targets), : targets.shape[1]] = targets
        sources[taken, targets.shape[1] + np.arange(len(taken))] = 1.0
        scores, reached = np.split(_propagated(graph, sources), [targets.shape[1]], axis=1)
        shares = np.full(targets.shape, 1 / targets.shape[1], np.float32)
        for place in judged:
            own = np.flatnonzero(units == units[place])
            near, weights = self._nearest(self.rows_[place : place + 1], own)
            from_own = reached[near[0]][:, np.searchsorted(taken, own)] @ targets[own]
            shares[place] = weights[0] @ _shares(np.maximum(scores[near[0]] - from_own, 0.0))
        logits = np.log(np.maximum(shares, _PRIOR))[None]
        return HeldOut.of(({"neighbours": float(self._n_near)},), shares[None], training, logits)

    def _graph(self, training: Training) -> Any:
        """Normalised weights between the labelled images (first) and the others, a symmetric sparse matrix."""
        from scipy.sparse import csr_matrix, diags

        if self._kept is not None and self._kept[0] is training:
            return self._kept[1]
        features = np.concatenate([training.features[training.originals], self.unlabelled])
        self.scaling_ = UnitRows(unit_rows(features).mean(axis=0))
        self.rows_ = self._scaled(features)
        n_rows = len(features)
        self._n_near = min(_NEIGHBOURS, n_rows - 1)
        near, weights = self._neighbours_within()
        pairs = (np.repeat(np.arange(n_rows), self._n_near), near.ravel())
        graph = csr_matrix((weights.ravel(), pairs), shape=(n_rows, n_rows))
        graph = graph.maximum(graph.T)
        scale = diags(1.0 / np.sqrt(np.maximum(np.asarray(graph.sum(axis=1)).ravel(), _LEAST)))
        self._kept = training, (scale @ graph @ scale).astype(np.float32)
        return self._kept[1]

    def _neighbours_within(self) -> tuple[Rows, Array]:
        """Of each row the nearest others, and their similarities to the power of 4."""
        near, weights = [], []
        for start in range(0, len(self.rows_), _BLOCK):
            block = self.rows_[start : start + _BLOCK]
            similar = block @ self.rows_.T
            similar[np.arange(len(block)), start + np.arange(len(block))] = -np.inf
            found, raised = _top(similar, self._n_near)
            near.append(found)
            weights.append(raised)
        return np.concatenate(near), np.concatenate(weights)

    def _nearest(self, rows: Array, left_out: Rows) -> tuple[Rows, Array]:
        """Indices of the nearest images but some, and their weights, which sum to 1."""
        similar = rows @ self.rows_.T
        similar[:, left_out] = -np.inf
        near, weights = _top(similar, min(self._n_near, similar.shape[1] - len(left_out)))
        return near, weights / weights.sum(axis=1, keepdims=True)

    def _scaled(self, features: Array) -> Array:
        return unit_rows(self.scaling_(features))

    def _probabilities(self, features: Array) -> Array:
        nobody, parts = np.empty(0, np.intp), []
        for start in range(0, max(len(features), 1), _BLOCK):  # without rows, one empty block
            near, weights = self._nearest(self._scaled(features[start : start + _BLOCK]), nobody)
            parts.append(np.einsum("nk,nkc->nc", weights, self.shares_[near]))
        return np.concatenate(parts).astype(np.float32)

    def _append(self, builder: Builder, features: str) -> str:
        scaled = append_unit_rows(builder, self.scaling_.append(builder, features), "head.scaled")
        stored = builder.constant("head.rows", np.ascontiguousarray(self.rows_.T))
        similar = builder.add("MatMul", scaled, stored)
        k = builder.constant("head.k", np.array([self._n_near], np.int64))
        top = builder.add("TopK", similar, k, name="head.nearest", n_outputs=2, axis=1)
        least = builder.constant("head.least_similar", np.array([_LEAST], np.float32))
        power = builder.constant("head.power", np.array([_POWER], np.float32))
        raised = builder.add("Pow", builder.add("Max", top, least), power)
        shares = builder.constant("head.shares", self.shares_)
        # (n, k, n_classes), by the indices of the nearest
        near = builder.add("Gather", shares, f"{top}.1", axis=0)
        last = builder.constant("head.last", np.array([2], np.int64))
        weighted = builder.add("Mul", near, builder.add("Unsqueeze", raised, last))
        over = builder.constant("head.over", np.array([1], np.int64))
        total = builder.add("ReduceSum", raised, over, keepdims=1)
        return builder.add("Div", builder.add("ReduceSum", weighted, over, keepdims=0), total)


def left_out(training: Training) -> Rows:
    """Positions among the images of those that are left out in turn: all, or 250, whole clusters first."""
    units = _units(training)
    if len(units) <= _JUDGED:
        return np.arange(len(units))
    order = np.random.default_rng([training.seed, 14]).permutation(int(units.max()) + 1)[units]
    return np.sort(np.argsort(order, kind="stable")[:_JUDGED])


def _units(training: Training) -> Rows:
    """The cluster of each image, from 0 on."""
    return np.unique(training.cluster_codes[training.originals], return_inverse=True)[1]


def _targets(training: Training) -> Array:
    """(n_images, n_classes): weighted labels of the images, without those of augmented copies."""
    own = training.originals
    targets: Array = one_hot(training.codes[own], training.n_classes) * training.weights[own][:, None]
    return targets


def _propagated(graph: Any, known: Array) -> Array:
    """The solution F of F = alpha graph F + known, by iteration."""
    found = known.copy()
    for _ in range(_STEPS):
        found = np.float32(_ALPHA) * (graph @ found) + known
    return found


def _shares(scores: Array) -> Array:
    """Scores as shares, (n, n_classes), rows summing to 1."""
    raised = scores + np.float32(_PRIOR)
    return raised / raised.sum(axis=1, keepdims=True)  # type: ignore[no-any-return]


def _top(similar: Array, k: int) -> tuple[Rows, Array]:
    """Columns of the k largest values of each row, and these values to the power of 4."""
    near = np.argpartition(-similar, k - 1, axis=1)[:, :k]
    values = np.take_along_axis(similar, near, axis=1)
    return near, np.maximum(values, np.float32(_LEAST)) ** np.float32(_POWER)
