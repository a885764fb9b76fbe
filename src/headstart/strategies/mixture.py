"""The weighted mean of the probabilities of several heads, each on features of its own place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from headstart.graph.build import GraphBuilder, PrefixedBuilder
from headstart.graph.pooling import read
from headstart.heads.base import Head, softmax
from headstart.records import Array
from headstart.sources.features import Place

__all__ = ["FittedHead", "Mixture", "mixed", "tempered"]

_LEAST = 1e-9  # probability below which a logarithm is cut


@dataclass(frozen=True)
class FittedHead:
    """A fitted head, where it reads features, and the rows of features that it was fitted on."""

    head: Head
    place: Place
    rows: Array


@dataclass(frozen=True)
class Mixture:
    """Fitted heads, the best first, with their shares of the mean; sum 1.

    The mean to the power of ``temperature``, normalised, is the probability.
    """

    heads: tuple[FittedHead, ...]
    shares: tuple[float, ...]
    temperature: float = 1.0

    @classmethod
    def even(cls, heads: Sequence[FittedHead]) -> Mixture:
        """All heads with the same share."""
        return cls(tuple(heads), (1 / len(heads),) * len(heads))

    @property
    def first(self) -> FittedHead:
        """The best head."""
        return self.heads[0]

    @property
    def without_rows(self) -> Mixture:
        """The same heads, without the memory of the rows that they were fitted on."""
        heads = (replace(one, rows=np.empty((0, one.rows.shape[1]), np.float32)) for one in self.heads)
        return replace(self, heads=tuple(heads))

    def probabilities(self, rows: Sequence[Array]) -> Array:
        """Probability of each class, (n_images, n_classes), from features at the place of each head."""
        found = [one.head.probabilities(features) for one, features in zip(self.heads, rows, strict=True)]
        return tempered(mixed(found, self.shares), self.temperature)

    def append(self, builder: GraphBuilder, layers: Mapping[str, Sequence[int]]) -> str:
        """Append all heads and their mean to a graph; returns the tensor of the probabilities."""
        outputs = []
        for number, one in enumerate(self.heads, start=1):
            own = builder if number == 1 else PrefixedBuilder(builder, f"head.{number}.")
            outputs.append(one.head.append(own, read(builder, layers, *one.place)))
        if len(outputs) == 1:
            return outputs[0]
        if len(set(self.shares)) == 1:
            mean = builder.add("Mean", *outputs, name="head.mixed")
        else:
            shares = [
                builder.constant(f"head.share.{number}", np.array([share], np.float32))
                for number, share in enumerate(self.shares, start=1)
            ]
            weighted = [builder.add("Mul", *pair) for pair in zip(outputs, shares, strict=True)]
            mean = builder.add("Sum", *weighted, name="head.mixed")
        if self.temperature == 1.0:
            return mean
        least = builder.constant("head.least_probability", np.array([_LEAST], np.float32))
        factor = builder.constant("head.mixed_temperature", np.array([self.temperature], np.float32))
        logits = builder.add("Mul", builder.add("Log", builder.add("Max", mean, least)), factor)
        return builder.add("Softmax", logits, axis=1)

    @property
    def note(self) -> dict[str, Any]:
        """Name and selected settings of a head; of several also where each reads, and its share."""
        heads = [
            {
                "name": one.head.name,
                "chosen": one.head.chosen_,
                "tap": one.place[0],
                "pooling": one.place[1],
                "share": share,
            }
            for one, share in zip(self.heads, self.shares, strict=True)
        ]
        if len(heads) == 1:
            return {name: heads[0][name] for name in ("name", "chosen")}
        chosen = {} if self.temperature == 1.0 else {"temperature": self.temperature}
        return {"name": f"mean of {len(heads)} heads", "chosen": chosen, "heads": heads}


def mixed(found: Sequence[Array], shares: Sequence[float] | None = None) -> Array:
    """The mean of probabilities, weighted by shares, by default all alike."""
    if len(found) == 1:
        return found[0]
    return np.average(found, axis=0, weights=shares).astype(np.float32)


def tempered(probs: Array, temperature: float) -> Array:
    """Probabilities to the power of a temperature, normalised."""
    if temperature == 1.0:
        return probs
    return softmax(np.log(np.maximum(probs, _LEAST)) * np.float32(temperature)).astype(np.float32)
