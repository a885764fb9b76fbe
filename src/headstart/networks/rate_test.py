"""Learning-rate range test: the rate rises at each step until the loss explodes, and a rate is suggested."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count

import numpy as np
from numpy.typing import NDArray

from headstart.errors import SettingError, ShapeError
from headstart.networks.contract import Trainable
from headstart.networks.training import AugmentBatch
from headstart.records import Codes, Images, TrainSettings

__all__ = ["FlatLossError", "RateCurve", "find_rate"]

_FEWEST = 20  # steps; a shorter curve shows no shape
_DIVERGED = 4.0  # times the lowest loss, as in fastai
_CAUTION = 6.0  # the suggestion is at most the rate of the lowest loss divided by this, before the factor
_RISE = 0.15  # share of the fall so far; a larger rise ends the curve
_REACHED = 0.9  # share of the fall at which the lowest loss counts as reached
_FACTORS = {"constant": 2.0, "one-cycle": 4.0, "cosine": 4.0}
"""By schedule, its highest rate relative to the one where the loss fell fastest. Measured on 5,000 images of
MNIST (2026-11-21, five pairs of network and optimizer, 2 epochs); a mean rate is about half a peak.
"""


class FlatLossError(SettingError):
    """The loss does not fall significantly, so that no learning rate can be suggested."""


@dataclass(frozen=True)
class RateCurve:
    """Smoothed losses in nats by learning rate, and the suggested rate; ``remark`` is a caveat or empty."""

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    suggestion: float
    remark: str = ""


def find_rate(
    network: Trainable,
    images: Images,
    labels: Codes,
    settings: TrainSettings,
    *,
    n_steps: int = 100,
    low: float = 1e-6,
    high: float = 1.0,
    augment: AugmentBatch | None = None,
) -> RateCurve:
    """Raise the learning rate from ``low`` to ``high`` by a constant factor per step, and suggest a rate.

    The network is restored afterwards, to the bit. The curve ends where the smoothed loss is four times its minimum,
    and counts up to its first clear rise: a network with batch norm recovers from a blow-up, and its loss falls
    steeply then. The suggestion is twice the rate at which the smoothed loss fell fastest, but at most a third of
    the rate of the lowest loss; twice that as the peak of a schedule that decays. A tenth of the rate of the lowest
    loss, and the longest fall ("valley"), did worse in training runs at the suggested rates. The lowest loss counts
    as reached at nine tenths of the fall, because below noise decides. The test runs without mixup, whose
    losses vary with the share of the mix. FlatLossError if the loss does not fall significantly below both its
    start and that of guessing.

    Smith. Cyclical Learning Rates for Training Neural Networks. WACV 2017, arXiv:1506.01186.
    """
    _check(images, labels, n_steps, low, high)
    rates = np.geomspace(low, high, n_steps)
    settings = replace(settings, mixup=0.0)
    network.start(settings)
    before = network.state()
    try:
        raw = _losses(network, images, labels, settings, rates, augment)
    finally:  # after an interruption, too
        network.start(settings)  # another optimizer, without the momentum of the test
        network.load_state(before)
    guess = _loss_of_guessing(labels, settings.label_smoothing)
    return _curve(rates, raw, _window(n_steps), _FACTORS.get(settings.schedule, 2.0), guess)


def _check(images: Images, labels: Codes, n_steps: int, low: float, high: float) -> None:
    if len(images) != len(labels) or not len(images):
        raise ShapeError(
            f"images has length {len(images)}, labels {len(labels)}, expected equal lengths of at least 1"
        )
    faults = []
    if n_steps < _FEWEST:
        faults.append(f"n_steps is {n_steps}, expected at least {_FEWEST}")
    if not (0 < low < high and math.isfinite(high)):
        faults.append(f"low is {low!r}, high {high!r}, expected two rates above 0, the lower one first")
    if faults:
        raise SettingError("; ".join(faults))


def _losses(
    network: Trainable,
    images: Images,
    labels: Codes,
    settings: TrainSettings,
    rates: NDArray[np.float64],
    augment: AugmentBatch | None,
) -> list[float]:
    """Mean loss of each batch before its step, until the smoothed loss explodes."""
    raw: list[float] = []
    least, smoothed = math.inf, _Smoothed(_window(len(rates)))
    batches = _batches(len(images), settings)
    for rate in rates:
        number, indices = next(batches)
        batch = images[indices] if augment is None else augment(images[indices], indices, number)
        with np.errstate(all="ignore"):  # the test ends in an overflow
            losses, _ = network.train_step(batch, labels[indices], float(rate))
            raw.append(float(losses.mean()))
        now = smoothed.add(raw[-1])
        if not math.isfinite(now) or now > _DIVERGED * least:
            break
        least = min(least, now)
    return raw


def _window(n_steps: int) -> int:
    """Length of the smoothing window: a fifth of the test."""
    return n_steps // 5


def _batches(n_images: int, settings: TrainSettings) -> Iterator[tuple[int, NDArray[np.intp]]]:
    """Endless epochs and batches of equal size: a smaller batch would add noise to the curve."""
    rng = np.random.default_rng([settings.seed, 12])
    size = min(settings.batch_size, n_images)
    for number in count(1):
        order = rng.permutation(n_images)
        for start in range(0, n_images - size + 1, size):
            yield number, order[start : start + size]


class _Smoothed:
    """A running mean whose first values are not biased towards zero (Kingma and Ba 2015, section 3)."""

    def __init__(self, window: int) -> None:
        self._kept = 1.0 - 1.0 / window
        self._sum = self._weight = 0.0

    def add(self, value: float) -> float:
        self._sum = self._kept * self._sum + value
        self._weight = self._kept * self._weight + 1.0
        return self._sum / self._weight


def _loss_of_guessing(labels: Codes, smoothing: float) -> float:
    """Loss in nats of predicting the class frequencies, with targets smoothed as in training."""
    counts = np.bincount(labels)
    shares = counts[counts > 0] / len(labels)
    shares = (1 - smoothing) * shares + smoothing / len(shares)
    return float(-(shares * np.log(shares)).sum())


def _curve(
    rates: NDArray[np.float64], raw: Sequence[float], window: int, factor: float, guess: float
) -> RateCurve:
    """Suggest a rate, or raise the reason why none can be suggested."""
    ended = math.isfinite(raw[-1])
    finite = np.asarray(raw if ended else raw[:-1])
    if len(finite) <= window + 1:
        raise SettingError(
            f"loss {'explodes' if ended else 'is not a number'} at a learning rate of "
            f"{rates[len(raw) - 1]:.2g}, after {len(raw)} steps of {len(rates)}, expected one that falls first; "
            f"start lower than {rates[0]:.2g}, or look at the images and their scaling"
        )
    smoothed = _Smoothed(window)
    losses = np.array([smoothed.add(float(value)) for value in finite])
    start = float(finite[:window].mean())
    # not the first window: its running mean has few losses and is noisy
    least = window + int(losses[window:].argmin())
    rise = _first_rise(losses, window, start, _noise(finite[: least + 1], window, start))
    least = window + int(losses[window:rise].argmin())
    fall = start - losses[least]
    if not min(start, guess) - losses[least] > _noise(finite[: least + 1], window, start):
        raise FlatLossError(
            f"loss does not fall between learning rates of {rates[0]:.2g} and {rates[len(losses) - 1]:.2g} "
            f"({start:.3g} to {losses[least]:.3g} at best, {guess:.3g} for guessing), expected a range where it "
            "falls significantly; widen the range, or check that the labels belong to the images"
        )
    floor = window + int(np.argmax(losses[window:rise] <= start - _REACHED * fall))
    steepest = _steepest(losses, window, floor, len(rates) // 20)
    suggestion = factor * min(float(rates[steepest]), float(rates[floor]) / _CAUTION)
    tried = tuple(float(rate) for rate in rates[: len(losses)])
    remark = ""
    if steepest == window:
        remark = f"the loss already falls at the lowest rate tried, {tried[0]:.2g}: start lower to see more"
    elif least == len(rates) - 1:
        remark = (
            f"the loss still falls at the highest rate tried, {tried[-1]:.2g}: a higher one may be better"
        )
    return RateCurve(tried, tuple(float(loss) for loss in losses), suggestion, remark)


def _noise(raw: NDArray[np.float64], window: int, start: float) -> float:
    """How far two smoothed losses may differ by chance, at least a fiftieth of the first loss."""
    one = 1.05 * float(np.median(np.abs(np.diff(raw))))  # the median is robust to the jumps at high rates
    return max(0.02 * start, 4 * one * math.sqrt(1 / window + 1 / (2 * window - 1)))


def _first_rise(losses: NDArray[np.float64], window: int, start: float, chance: float) -> int:
    """The first step whose smoothed loss is above its minimum by more than chance, or the number of steps."""
    least = np.minimum.accumulate(losses[window:])
    risen = losses[window:] > least + np.maximum(_RISE * (start - least), chance)
    return window + int(np.argmax(risen)) if risen.any() else len(losses)


def _steepest(losses: NDArray[np.float64], first: int, last: int, reach: int) -> int:
    """Where the loss falls fastest, by lines fitted through ``reach`` losses on either side of a step."""
    slopes = []
    for step in range(first, last + 1):
        some = losses[step - reach : min(step + reach, last) + 1]
        offsets = np.arange(len(some)) - (len(some) - 1) / 2
        slopes.append(float(offsets @ some / (offsets @ offsets)))
    return first + int(np.argmin(slopes))
