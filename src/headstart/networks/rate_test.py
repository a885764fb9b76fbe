"""A learning rate from a short test: the rate rises until the loss does.

In: a network, uint8 images, integer codes, settings. Out: the loss by rate, and a rate to train with; the
network is as it was. Must not import an engine: it knows only the protocol. Called before training, by
strategies and the command line.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count

import numpy as np
from numpy.typing import NDArray

from headstart.errors import SettingError, ShapeError
from headstart.networks.contract import Trainable
from headstart.networks.training import Views
from headstart.records import Codes, Images, TrainSettings

__all__ = ["FlatLossError", "RateCurve", "find_rate"]

_FEWEST = 20  # steps; a curve of fewer has no shape
_DIVERGED = 4.0  # times the least loss, where fastai stops too
_CAUTION = 6.0  # so far below the rate of the least loss is the rate of the steepest taken to be, at least
_RISE = 0.15  # of the fall so far: a loss that rises by more has left the floor
_REACHED = 0.9  # of the fall: from here on it is the floor
_FACTORS = {"constant": 2.0, "one-cycle": 4.0, "cosine": 4.0}
"""By schedule, its highest rate in units of the one where the loss fell fastest. Measured on 5,000 images of
MNIST (2026-11-21, five pairs of network and optimizer, 2 epochs); a mean rate is about half a peak."""


class FlatLossError(SettingError):
    """The loss does not fall significantly, so that no learning rate can be read off it."""


@dataclass(frozen=True)
class RateCurve:
    """How the loss went while the learning rate rose, and the rate to train with.

    ``losses`` in nats are smoothed, one for each of ``rates``; ``suggestion`` is in units of ``rates``;
    ``remark``, if not empty, is a sentence on what to doubt about it.
    """

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
    views: Views | None = None,
) -> RateCurve:
    """Raise the learning rate batch by batch until the loss explodes, and suggest a rate.

    Parameters
    ----------
    network : Trainable
        Trained for a moment, then put back: a training that follows gives the same bits as without.
    images : ndarray of shape (n_images, height, width, channels), uint8
        Training images at the network's input size. Fewer than ``n_steps`` batches are gone through
        again, in another order.
    labels : ndarray of shape (n_images,), int64
        Codes in ``[0, n_classes)``.
    settings : TrainSettings
        What the training will use; ``learning_rate`` and ``epochs`` play no part.
    n_steps : int, default=100
        Batches, 20 or more.
    low, high : float, default=1e-6, 1.0
        The first rate and the last; between them it rises by the same factor at each step.
    views : callable, optional
        Other augmented views of every batch, as the training will have them; see ``training.Views``.

    Returns
    -------
    RateCurve
        Up to the step at which the smoothed loss was four times its least.

    Raises
    ------
    SettingError
        If an option is out of range; or if the loss was not finite or exploded at once.
    FlatLossError
        If the loss did not fall significantly, or not below that of guessing by the class frequencies.
    ShapeError
        If images and labels differ in number, or there are none.

    Notes
    -----
    A loss that falls from where the weights happened to start to that of guessing has learned nothing: the
    fall counts from the lower of the two.

    The suggestion is twice the rate at which the smoothed loss fell fastest, but at most a third of the
    rate of the least loss; twice that as the peak of a schedule that falls again. Losses are smoothed
    over the last fifth of the test and slopes taken over a tenth, whatever its steps. A tenth of the rate
    of the least loss, and the longest fall ("valley"), did worse in trainings at the suggested rates. The
    curve counts up to where the loss first rose clearly: a network with batch norm recovers from a blow-up
    at a higher rate, and falls steeply then. The least loss counts as reached after nine tenths of the
    fall, because on the floor that follows noise decides. Mixup is left out of the test: the losses of
    mixed images are those of half an answer, and go up and down with the share of the mix. The order of
    the images is drawn from ``settings.seed``. Cost: ``n_steps`` training steps at most.

    References
    ----------
    Smith. Cyclical Learning Rates for Training Neural Networks. WACV 2017, arXiv:1506.01186.
    """
    _check(images, labels, n_steps, low, high)
    rates = np.geomspace(low, high, n_steps)
    settings = replace(settings, mixup=0.0)
    network.start(settings)
    before = network.state()
    try:
        raw = _losses(network, images, labels, settings, rates, views)
    finally:  # an interrupted test leaves no trace either
        network.start(settings)  # another optimizer, without the momentum of the test
        network.load_state(before)
    guess = _loss_of_guessing(labels, settings.label_smoothing)
    return _read(rates, raw, _window(n_steps), _FACTORS.get(settings.schedule, 2.0), guess)


def _check(images: Images, labels: Codes, n_steps: int, low: float, high: float) -> None:
    if len(images) != len(labels) or not len(images):
        raise ShapeError(
            f"images number {len(images)}, labels {len(labels)}, expected as many of each and at least one"
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
    views: Views | None,
) -> list[float]:
    """Mean loss of each batch, before the step that learnt from it, until the smoothed one explodes."""
    raw: list[float] = []
    least, smoothed = math.inf, _Smoothed(_window(len(rates)))
    batches = _batches(len(images), settings)
    for rate in rates:
        number, indices = next(batches)
        batch = images[indices] if views is None else views(images[indices], indices, number)
        with np.errstate(all="ignore"):  # to overflow is what a test of rates ends with
            losses, _ = network.train_step(batch, labels[indices], float(rate))
            raw.append(float(losses.mean()))
        now = smoothed.add(raw[-1])
        if not math.isfinite(now) or now > _DIVERGED * least:
            break
        least = min(least, now)
    return raw


def _window(n_steps: int) -> int:
    """How many losses a smoothed one looks back on: a fifth of the test."""
    return n_steps // 5


def _batches(n_images: int, settings: TrainSettings) -> Iterator[tuple[int, NDArray[np.intp]]]:
    """Round and places of batches without end, of equal size: a small one would be noise on the curve."""
    rng = np.random.default_rng([settings.seed, 12])
    size = min(settings.batch_size, n_images)
    for number in count(1):
        order = rng.permutation(n_images)
        for start in range(0, n_images - size + 1, size):
            yield number, order[start : start + size]


class _Smoothed:
    """A running mean whose first values are not pulled to zero (Kingma and Ba 2015, section 3)."""

    def __init__(self, window: int) -> None:
        self._kept = 1.0 - 1.0 / window
        self._sum = self._weight = 0.0

    def add(self, value: float) -> float:
        self._sum = self._kept * self._sum + value
        self._weight = self._kept * self._weight + 1.0
        return self._sum / self._weight


def _loss_of_guessing(labels: Codes, smoothing: float) -> float:
    """Nats where every answer is the class frequencies, of targets smoothed as training smooths them."""
    counts = np.bincount(labels)
    shares = counts[counts > 0] / len(labels)
    shares = (1 - smoothing) * shares + smoothing / len(shares)
    return float(-(shares * np.log(shares)).sum())


def _read(
    rates: NDArray[np.float64], raw: Sequence[float], window: int, factor: float, guess: float
) -> RateCurve:
    """Suggest a rate, or say why none can be."""
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
    # the first window is for comparison: its running mean is of few losses, and wavers
    least = window + int(losses[window:].argmin())
    rise = _first_rise(losses, window, start, _chance(finite[: least + 1], window, start))
    least = window + int(losses[window:rise].argmin())
    fall = start - losses[least]
    if not min(start, guess) - losses[least] > _chance(finite[: least + 1], window, start):
        raise FlatLossError(
            f"loss does not fall between learning rates of {rates[0]:.2g} and {rates[len(losses) - 1]:.2g} "
            f"({start:.3g} to {losses[least]:.3g} at best, guessing has {guess:.3g}), expected a range where it "
            "falls significantly; widen the range, or check that the labels belong to the images"
        )
    floor = window + int(np.argmax(losses[window:rise] <= start - _REACHED * fall))
    steepest = _steepest(losses, window, floor, len(rates) // 20)
    suggestion = factor * min(float(rates[steepest]), float(rates[floor]) / _CAUTION)
    tried = tuple(float(rate) for rate in rates[: len(losses)])
    remark = ""
    if steepest == window:
        remark = f"the loss falls from the lowest rates tried on, {tried[0]:.2g}: start lower to see more"
    elif least == len(rates) - 1:
        remark = (
            f"the loss still falls at the highest rate tried, {tried[-1]:.2g}: a higher one may be better"
        )
    return RateCurve(tried, tuple(float(loss) for loss in losses), suggestion, remark)


def _chance(raw: NDArray[np.float64], window: int, start: float) -> float:
    """How far two smoothed losses may lie apart for no reason, at least a fiftieth of the first loss."""
    one = 1.05 * float(np.median(np.abs(np.diff(raw))))  # as a median, because those of high rates jump
    return max(0.02 * start, 4 * one * math.sqrt(1 / window + 1 / (2 * window - 1)))


def _first_rise(losses: NDArray[np.float64], window: int, start: float, chance: float) -> int:
    """The first step whose smoothed loss rose above its least by more than chance, or how many there are."""
    least = np.minimum.accumulate(losses[window:])
    risen = losses[window:] > least + np.maximum(_RISE * (start - least), chance)
    return window + int(np.argmax(risen)) if risen.any() else len(losses)


def _steepest(losses: NDArray[np.float64], first: int, last: int, reach: int) -> int:
    """Where the loss falls fastest, as lines through so many losses on either side of a step tell."""
    slopes = []
    for step in range(first, last + 1):
        some = losses[step - reach : min(step + reach, last) + 1]
        away = np.arange(len(some)) - (len(some) - 1) / 2
        slopes.append(float(away @ some / (away @ away)))
    return first + int(np.argmin(slopes))
