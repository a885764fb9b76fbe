"""Numbers as the sum of two float32, for runtimes without float64: about 46 bits instead of 24."""

from __future__ import annotations

from typing import NamedTuple

from headstart.graph.preparation.tensors import Number, Tensor, where

__all__ = ["Pair", "exact_product", "exact_sum"]

_SPLIT = 2.0**12 + 1
"""Cuts 24 bits into halves of 12, whose products are exact (Dekker, A floating-point technique, 1971)."""
_GRAIN = 2.0**12


class Pair(NamedTuple):
    """A number as a sum, the second part far below the first."""

    high: Tensor
    low: Tensor

    def plus(self, other: Pair | Tensor) -> Pair:
        """The sum."""
        added = other if isinstance(other, Pair) else Pair(other, other * 0)
        total = exact_sum(self.high, added.high)
        return Pair(total.high, total.low + (self.low + added.low))

    def times(self, other: Pair) -> Pair:
        """The product."""
        product = exact_product(self.high, other.high)
        return Pair(product.high, product.low + (self.high * other.low + self.low * other.high))

    def over(self, other: Pair) -> Pair:
        """The quotient, also where a runtime divides by multiplying with a rounded reciprocal, as OpenVINO does."""
        first = self.high / other.high
        back = exact_product(first, other.high)
        rest = ((self.high - back.high) - back.low) + (self.low - first * other.low)
        return Pair(first, rest / other.high)

    def scaled(self, power: Number) -> Pair:
        """The product with a power of two."""
        return Pair(self.high * power, self.low * power)

    def chosen(self, condition: Tensor, other: Pair) -> Pair:
        """The same where the condition is 1, the other where it is 0."""
        return Pair(where(condition, self.high, other.high), where(condition, self.low, other.low))

    def sums(self) -> Pair:
        """Sums of rows of at most 4,096 numbers: first of whole parts, then of the next 12 bits, then of the rest."""
        whole = self.high.floor()
        rest = self.high - whole
        middle = (rest * _GRAIN).floor() / _GRAIN
        first = exact_sum(whole.sum(1, keep=True), middle.sum(1, keep=True))
        return Pair(first.high, first.low + ((rest - middle) + self.low).sum(1, keep=True))

    def rounded(self, factor: float) -> Tensor:
        """The nearest whole number to the product with a power of two."""
        whole = (self.high * factor).floor()
        return whole + ((self.high * factor - whole) + self.low * factor + 0.5).floor()


def exact_sum(one: Tensor, other: Tensor) -> Pair:
    """The sum without rounding (Knuth, The art of computer programming 2, 4.2.2)."""
    total = one + other
    added = total - one
    return Pair(total, (one - (total - added)) + (other - added))


def exact_product(one: Tensor, other: Tensor) -> Pair:
    """The product without rounding (Dekker)."""
    total = one * other
    (a, b), (c, d) = _halves(one), _halves(other)
    return Pair(total, ((a * c - total) + a * d + b * c) + b * d)


def _halves(value: Tensor) -> Pair:
    scaled = value * _SPLIT
    upper = scaled - (scaled - value)
    return Pair(upper, value - upper)
