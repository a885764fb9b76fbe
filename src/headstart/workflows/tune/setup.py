"""What all trials of a search over training share: the network and three parts of the training images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headstart.data.checks.refuse import refuse_small_classes
from headstart.data.dataset import Dataset, require_classes
from headstart.data.images.prepare import prepare
from headstart.data.splits import holdout
from headstart.networks.contract import TrainableNetwork
from headstart.networks.engines.registry import make_network
from headstart.networks.specs import architecture
from headstart.networks.training import OnStep, fit
from headstart.records import Codes, Images, NetworkSpec
from headstart.sources.networks import native_input
from headstart.system.progress import Progress
from headstart.system.threads import one_thread
from headstart.workflows.tune.regime import Regime
from headstart.workflows.tune.search import TO_TUNE, Hits

__all__ = [
    "EpochProgress",
    "Part",
    "TrialSetup",
    "correct",
    "hold_out_part",
    "make_setup",
    "packed_hits",
    "unpacked_hits",
]


_EVALUATION_SHARE, _SELECTION_SHARE = 0.2, 0.25  # of all images, and of the rest: each a fifth of all
_MOST_HELD = 3_000
Part = tuple[Images, Codes]


@dataclass(frozen=True)
class TrialSetup:
    """What all trials share: the network, its engine, and images to train on, select by and evaluate on.

    ``cluster_codes`` are the clusters of the selection images and of the evaluation images. Of ``at_once`` trials
    that are drawn together each is trained on one thread of the processor, since sums by several threads, or by a
    graphics card, have other last bits.
    """

    spec: NetworkSpec
    engine: str
    seed: int
    progress: Progress
    fit: Part
    selection: Part
    evaluation: Part
    cluster_codes: tuple[NDArray[np.generic] | None, ...] = (None, None)
    at_once: int = 1

    @property
    def device(self) -> str:
        """Where PyTorch trains."""
        return "cpu" if self.at_once > 1 else "auto"

    def threads(self) -> AbstractContextManager[None]:
        """For a block that trains or evaluates."""
        return one_thread() if self.at_once > 1 else nullcontext()

    def trained(self, regime: Regime, on_step: Callable[[TrainableNetwork], OnStep]) -> TrainableNetwork:
        """A network trained on the training images."""
        network = make_network(regime.network(self.spec), self.engine, self.seed, self.device)
        with np.errstate(all="ignore"):  # a rate that is too high overflows; the loss shows it
            fit(network, *self.fit, regime.settings(self.seed), on_step=on_step(network))
        return network

    def hits(self, regime: Regime) -> tuple[Hits, Hits]:
        """Train again; which selection images and which evaluation images are predicted correctly."""
        total = regime.epochs * len(self.fit[1])
        epoch_progress = EpochProgress(self.progress, "train the best and the default", total, "")

        def on_step(done: int, n_images: int, loss: float, accuracy: float) -> None:
            epoch_progress(done, n_images)

        with self.threads():
            network = self.trained(regime, lambda network: on_step)
            return correct(network, self.selection), correct(network, self.evaluation)


def packed_hits(network: TrainableNetwork, setup: TrialSetup) -> list[str]:
    """Which selection and evaluation images are predicted correctly, as text of bits."""
    return [
        np.packbits(correct(network, part)).tobytes().hex() for part in (setup.selection, setup.evaluation)
    ]


def unpacked_hits(texts: Sequence[str], setup: TrialSetup) -> tuple[Hits, Hits]:
    """The inverse of `packed_hits`."""
    selection, evaluation = (
        np.unpackbits(np.frombuffer(bytes.fromhex(text), np.uint8))[: len(part[1])].astype(np.bool_)
        for text, part in zip(texts, (setup.selection, setup.evaluation), strict=True)
    )
    return selection, evaluation


def correct(network: TrainableNetwork, part: Part) -> Hits:
    """Which images are predicted correctly."""
    return np.asarray(network.logits(part[0]).argmax(axis=1) == part[1])


class EpochProgress:
    """Progress of one training over its epochs, in images."""

    def __init__(self, progress: Progress, task: str, total: int, note: str) -> None:
        self._progress, self._task, self._total, self._note = progress, task, total, note
        self._before, self.epochs = 0, 0

    def __call__(self, done: int, n_images: int) -> bool:
        """Report progress within an epoch; whether the epoch ended."""
        self._progress.step(self._task, self._before + done, self._total, self._note)
        if done < n_images:
            return False
        self._before, self.epochs = self._before + n_images, self.epochs + 1
        return True


def make_setup(
    train: Dataset, network: str, engine: str, seed: int, progress: Progress, *, at_once: int = 1
) -> TrialSetup:
    """Split the training images into three parts, resized to the network's input."""
    require_classes(train)
    spec = architecture(network, native_input(train), len(train.classes))
    make_network(spec, engine, seed)  # finds a wrong name before a file is written
    refuse_small_classes(train.counts(), 3, TO_TUNE, dataset=train.name)
    rest, evaluation = hold_out_part(train, np.arange(len(train)), _EVALUATION_SHARE, seed)
    fitted, selection = hold_out_part(train, rest, _SELECTION_SHARE, seed)
    images, codes = prepare(train, spec.input), train.codes()
    parts = [(images[part], codes[part]) for part in (fitted, selection, evaluation)]
    clusters = tuple(
        None if train.cluster_codes is None else train.cluster_codes[part] for part in (selection, evaluation)
    )
    return TrialSetup(spec, engine, seed, progress, parts[0], parts[1], parts[2], clusters, at_once)


def hold_out_part(
    train: Dataset, some: NDArray[np.intp], share: float, seed: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Hold out a stratified share of some of the images, at most 3,000, without splitting groups."""
    groups = None if train.cluster_codes is None else train.cluster_codes[some]
    share = min(share, _MOST_HELD / len(some))
    rest, held = holdout(train.labels[some], share, np.random.default_rng([seed, 11, len(some)]), groups)
    return some[rest], some[held]
