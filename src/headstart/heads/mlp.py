"""The MLP head: one hidden layer with dropout, trained by gradient descent with the from-scratch network."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from headstart.errors import SettingError
from headstart.heads.base import Builder, Head, Watch, append_softmax, log_loss, softmax
from headstart.heads.scaling import Standardiser
from headstart.heads.training import Training
from headstart.records import Array, Codes, Curve
from headstart.scratch import Adam, Dense, Dropout, Network, ReLU

__all__ = ["MLPHead"]

_LOWERED, _FACTOR = 2, 0.2  # how often and how far the rate falls
_FEW = 50  # images below which none are held out for early stopping


class MLPHead(Head):
    """Dense - ReLU - dropout - dense - softmax on standardised features, by Adam with early stopping.

    From 50 images on, a stratified tenth of the images is held out for early stopping; with fewer, all
    ``epochs`` run. After ``patience`` epochs without a lower held-out loss the best weights come back and
    learning continues at a fifth of the rate; the third time it stops.
    """

    name = "mlp"

    def __init__(
        self,
        units: int = 256,
        dropout: float = 0.5,
        epochs: int = 100,
        patience: int = 4,
        learning_rate: float = 1e-3,
        batch_size: int = 64,
    ) -> None:
        if min(units, epochs, patience, batch_size) < 1 or not 0 <= dropout < 1 or not learning_rate > 0:
            raise SettingError(
                f"units {units}, epochs {epochs}, patience {patience}, batch_size {batch_size}, "
                f"dropout {dropout}, learning_rate {learning_rate} are not all possible, expected counts of at "
                "least 1, dropout in [0, 1) and a rate above 0"
            )
        self.units, self.dropout, self.epochs, self.patience = units, dropout, epochs, patience
        self.learning_rate, self.batch_size = learning_rate, batch_size

    @property
    def n_features(self) -> int:
        """Number of features per row that the head was fitted on."""
        return len(self.hidden_weight_)

    def _fit(self, training: Training, watch: Watch | None) -> None:
        standardise, root = (
            Standardiser.of(training.features),
            np.float32(np.sqrt(training.features.shape[1])),
        )
        rows = standardise(training.features)
        rows *= root  # unit variance suits Adam
        training = replace(training, features=rows)
        if len(training.originals) >= _FEW and training.smallest_class > 1:
            learn, stop = training.split(0.1)
        else:
            learn, stop = np.arange(len(rows)), np.arange(0)
        network = self._network(rows.shape[1], training.n_classes, training.seed)
        watched = None
        if watch is not None:
            held, held_codes = self._watched(watch)
            watched = standardise(held) * root, held_codes
        lines = self._learn(network, training, learn, (rows[stop], training.codes[stop]), watched)
        best = self.chosen_["epochs"] if len(stop) else None
        self.curve_ = _curve(lines, best) if watch is not None else None
        parts = network.parameters()
        self.hidden_weight_, self.hidden_bias_ = standardise.fold(
            parts["hidden.weight"] * root, parts["hidden.bias"]
        )
        self.weight_, self.bias_ = parts["output.weight"], parts["output.bias"]

    def _network(self, n_features: int, n_classes: int, seed: int) -> Network:
        rng = np.random.default_rng([seed, 4])
        layers = [Dense("hidden", self.units), ReLU("relu"), Dropout("dropout", self.dropout, rng)]
        return Network([*layers, Dense("output", n_classes)], (n_features,), rng)

    def _learn(
        self,
        network: Network,
        training: Training,
        learn: NDArray[np.intp],
        stop: tuple[Array, Codes],
        watched: tuple[Array, Codes] | None,
    ) -> list[tuple[float, ...]]:
        """Train until the held-out loss stops falling; losses and accuracies of each epoch."""
        adam = Adam(network.trainable_values, network.trainable_grads)
        rng = np.random.default_rng([training.seed, 5])
        lines: list[tuple[float, ...]] = []
        best, since, kept, best_epoch = np.inf, 0, network.parameters(), 0
        rate, n_lowered = self.learning_rate, 0
        for _ in range(self.epochs):
            order = rng.permutation(learn)
            losses, hits = 0.0, 0.0
            for start in range(0, len(order), self.batch_size):
                part = order[start : start + self.batch_size]
                each, right = network.train_step(
                    training.features[part],
                    training.codes[part],
                    adam,
                    rate,
                    weights=training.weights[part] if training.weighted else None,
                )
                losses, hits = losses + float(each.sum()), hits + float(right.sum())
            lines.append((losses / len(order), hits / len(order), *_measure(network, watched)))
            if len(stop[1]):
                loss = _measure(network, stop)[0]
                best, since, kept = (
                    (loss, 0, network.parameters()) if loss < best else (best, since + 1, kept)
                )
                best_epoch = best_epoch if since else len(lines)
                if since >= self.patience:
                    if n_lowered == _LOWERED:
                        break
                    network.load_parameters(kept)
                    rate, n_lowered, since = rate * _FACTOR, n_lowered + 1, 0
        if len(stop[1]):
            network.load_parameters(kept)
        self.chosen_ = {"epochs": float(best_epoch or len(lines)), "learning_rate": rate}
        return lines

    def _probabilities(self, features: Array) -> Array:
        hidden = np.maximum(features @ self.hidden_weight_ + self.hidden_bias_, 0.0)
        return softmax(hidden @ self.weight_ + self.bias_).astype(np.float32)

    def _append(self, builder: Builder, features: str) -> str:
        first = [
            builder.constant("head.hidden_weight", self.hidden_weight_),
            builder.constant("head.hidden_bias", self.hidden_bias_),
        ]
        hidden = builder.add("Relu", builder.add("Gemm", features, *first, name="head.hidden"))
        return append_softmax(builder, hidden, self.weight_, self.bias_)


def _measure(network: Network, held: tuple[Array, Codes] | None) -> tuple[float, float]:
    if held is None:
        return float("nan"), float("nan")
    logits = network.logits(held[0])
    return log_loss(logits, held[1]), float((logits.argmax(axis=1) == held[1]).mean())


def _curve(lines: list[tuple[float, ...]], best: float | None) -> Curve:
    columns = list(zip(*lines, strict=True))
    steps = tuple(float(step) for step in range(1, len(lines) + 1))
    return Curve("head", "epoch", steps, columns[0], columns[2], columns[1], columns[3], best)
