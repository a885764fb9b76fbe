"""Heads that classify by distance: nearest neighbours, and prototypes (class means)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from headstart.errors import SettingError
from headstart.heads.base import (
    AffineHead,
    Builder,
    Head,
    Watch,
    calibrated_loss,
    fit_temperature,
    softmax,
    squared_distances,
)
from headstart.heads.held_out import HeldOut, best_setting
from headstart.heads.scaling import Standardiser
from headstart.heads.training import Training, one_hot
from headstart.records import Array, Codes

__all__ = ["NeighboursHead", "PrototypesHead"]

_BLOCK = 2_048
_SCALINGS = (Standardiser.centring, Standardiser.of)  # unscaled features, or each brought to one scale
_TIE = 1e-3  # of a vote, the extra weight of the nearest


class NeighboursHead(Head):
    """Votes of the k nearest training images, smoothed so that no class has probability zero.

    ``candidates`` for k are compared by the calibrated loss of leave-one-out votes. Euclidean distance on
    centred features, each brought to one scale if that gives the smaller loss. The share of a class is (votes
    + 0.5) / (k + n_classes / 2); probabilities are these shares to the power of a temperature fitted to the
    leave-one-out votes. Prediction costs n_images x n_training_images products.

    >>> features = np.array([[0.0], [0.1], [5.0], [5.1]], np.float32)
    >>> head = NeighboursHead((1,)).fit(features, np.array(["ant", "ant", "bee", "bee"]))
    >>> head.predict(np.array([[4.0]], np.float32)).tolist()
    ['bee']
    """

    name = "neighbours"

    def __init__(self, candidates: tuple[int, ...] = (1, 3, 5, 7, 9, 15, 25)) -> None:
        if not candidates or min(candidates) < 1:
            raise SettingError(f"candidates are {candidates!r}, expected numbers of neighbours of at least 1")
        self.candidates = tuple(sorted(candidates))

    @property
    def n_features(self) -> int:
        """Number of features per row that the head was fitted on."""
        return int(self.rows_.shape[1])

    def _fit(self, training: Training, watch: Watch | None) -> None:
        held = self.held_out(training)
        self.k_, self.temperature_, scaled = 1, 1.0, 0.0
        if held is not None:
            best, judged = best_setting(held), training.originals
            self.k_, scaled = int(held.settings[best]["neighbours"]), held.settings[best]["scaled"]
            self.temperature_ = fit_temperature(
                held.logits[best], training.codes[judged], training.weights[judged]
            )
        self._keep(training, _SCALINGS[int(scaled)])
        self.chosen_ = {"neighbours": float(self.k_), "scaled": scaled, "temperature": self.temperature_}

    def _keep(self, training: Training, scaling: Callable[[Array], Standardiser]) -> None:
        self.standardise_ = scaling(training.features)
        self.rows_ = self.standardise_(training.features)
        self.targets_ = one_hot(training.codes, training.n_classes) * training.weights[:, None]

    def held_out(self, training: Training) -> HeldOut | None:
        """Shares of the votes of the k nearest images of other clusters, for every k and both scalings."""
        if training.smallest_class < 2:
            return None
        settings: list[dict[str, float]] = []
        shares: list[Array] = []
        logits: list[Array] = []
        for scaled, scaling in enumerate(_SCALINGS):
            self._keep(training, scaling)
            order = self._nearest_others(training)
            ks = [k for k in self.candidates if k <= order.shape[1]] or [1]
            votes = self.targets_[order[:, : ks[-1]]]  # (n_images, k, n_classes)
            for k in ks:
                counts = self._weighed(votes[:, :k])
                settings.append({"neighbours": float(k), "scaled": float(scaled)})
                shares.append(counts / np.float32(k))
                logits.append(np.log(self._smoothed(counts)).astype(np.float32))
        held = HeldOut.of(tuple(settings), np.stack(shares), training, np.stack(logits))
        judged = training.originals
        # squared errors of raw votes would favour many neighbours where a class has few images
        codes, weights = training.codes[judged], training.weights[judged]
        losses = np.array([calibrated_loss(one, codes, weights) for one in held.logits])
        return replace(held, errors=losses)

    def _nearest_others(self, training: Training) -> NDArray[np.intp]:
        """(n_images, k): for each image the nearest rows of other clusters."""
        clusters = np.unique(training.cluster_codes, return_inverse=True)[1]
        own = int(np.bincount(clusters).max())
        k = min(self.candidates[-1], len(clusters) - own)
        order = self._nearest(self.rows_[training.originals], k + own)
        same = clusters[order] == clusters[training.originals][:, None]
        last = np.argsort(same, axis=1, kind="stable")  # rows of its own cluster after all others
        return np.take_along_axis(order, last, axis=1)[:, :k]

    def _nearest(self, rows: Array, k: int) -> NDArray[np.intp]:
        """(n_rows, k): indices of training rows, nearest first."""
        k, parts = min(k, len(self.rows_)), []
        squares = (self.rows_**2).sum(axis=1)
        for start in range(0, max(len(rows), 1), _BLOCK):  # without rows, one empty block
            distances = squares - 2.0 * rows[start : start + _BLOCK] @ self.rows_.T
            near = np.argpartition(distances, k - 1, axis=1)[:, :k]
            inner = np.argsort(np.take_along_axis(distances, near, axis=1), axis=1, kind="stable")
            parts.append(np.take_along_axis(near, inner, axis=1))
        return np.concatenate(parts)

    @staticmethod
    def _weighed(votes: Array) -> Array:
        """Sum of the votes of neighbours, (n, k, n_classes); where they tie, the nearest decides."""
        return votes.sum(axis=1) + np.float32(_TIE) * votes[:, 0]  # type: ignore[no-any-return]

    def _smoothed(self, votes: Array) -> Array:
        raised = votes + 0.5  # (n, n_classes)
        return raised / raised.sum(axis=1, keepdims=True)  # type: ignore[no-any-return]

    def _probabilities(self, features: Array) -> Array:
        near = self._nearest(self.standardise_(features), self.k_)
        logits = np.log(self._smoothed(self._weighed(self.targets_[near])))
        return softmax(logits * self.temperature_).astype(np.float32)

    def _append(self, builder: Builder, features: str) -> str:
        rows = self.standardise_.append(builder, features)
        cross = builder.add(
            "MatMul", rows, builder.constant("head.rows", (2.0 * self.rows_.T).astype(np.float32))
        )
        squares = builder.constant("head.squares", (self.rows_**2).sum(axis=1))
        closeness = builder.add("Sub", cross, squares)
        k = builder.constant("head.k", np.array([self.k_], np.int64))
        near = builder.add("TopK", closeness, k, name="head.nearest", n_outputs=2)
        voters = builder.add(
            "Gather", builder.constant("head.targets", self.targets_), near + ".1"
        )  # (n, k, classes)
        weights = np.ones((1, len(self.rows_[: self.k_]), 1), np.float32)
        weights[0, 0] += _TIE
        weighed = builder.add("Mul", voters, builder.constant("head.weights", weights))
        votes = builder.add("ReduceSum", weighed, builder.constant("head.axis", np.array([1])), keepdims=0)
        raised = builder.add("Add", votes, builder.constant("head.smoothing", np.array([0.5], np.float32)))
        factor = builder.constant("head.temperature", np.array([self.temperature_], np.float32))
        return builder.add("Softmax", builder.add("Mul", builder.add("Log", raised), factor), axis=1)


class PrototypesHead(AffineHead):
    """One mean per class; probability by squared distance, with a temperature from leave-one-out.

    It works from one image per class. Leaving a cluster out moves the means of its classes by what it
    contributed to their sums, so the scores of all left-out images cost no refit.
    Snell, Swersky, Zemel. Prototypical Networks for Few-shot Learning. NeurIPS 2017, arXiv:1703.05175.
    """

    name = "prototypes"

    def _fit(self, training: Training, watch: Watch | None) -> None:  # classes have equal weights in any case
        features, codes = training.features[training.originals], training.codes[training.originals]
        standardise = Standardiser.of(features)
        rows, targets = standardise(features).astype(np.float64), one_hot(codes, training.n_classes)
        counts = targets.sum(axis=0)  # (n_classes,)
        means = (targets / counts).T @ rows  # (n_classes, n_features)
        clusters = np.unique(training.cluster_codes[training.originals], return_inverse=True)[1]
        temperature = self._temperature(rows, codes, means, counts, clusters)
        self.chosen_ = {"temperature": temperature}
        # -t |x - m|^2 is linear in x but for t |x|^2, which no softmax sees
        weight, bias = 2.0 * temperature * means.T, -temperature * (means**2).sum(axis=1)
        self.weight_, self.bias_ = standardise.fold(weight, bias)

    @staticmethod
    def _temperature(
        rows: NDArray[np.float64],
        codes: Codes,
        means: NDArray[np.float64],
        counts: Array,
        clusters: NDArray[np.intp],
    ) -> float:
        distances = squared_distances(rows, means)
        # of each image's cluster: how many are of each class, and their sum
        shape = (int(clusters.max()) + 1, len(means))
        inside = np.zeros(shape)
        np.add.at(inside, (clusters, codes), 1)
        here = np.flatnonzero(counts[codes] > inside[clusters, codes])
        if not len(here):  # one cluster per class: nothing can be left out
            gaps = squared_distances(means, means)
            return float(len(means) / max(gaps.mean(), 1e-12))
        for code in range(len(means)):
            sums = np.zeros((shape[0], rows.shape[1]))
            np.add.at(sums, clusters[codes == code], rows[codes == code])
            touched = here[inside[clusters[here], code] > 0]
            left = np.maximum(counts[code] - inside[clusters[touched], code], 1e-12)[:, None]
            without = (counts[code] * means[code] - sums[clusters[touched]]) / left
            distances[touched, code] = ((rows[touched] - without) ** 2).sum(axis=1)
        return fit_temperature(-distances[here], codes[here])
