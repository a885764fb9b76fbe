"""The strategy finetune: fit the head, unfreeze the network, keep the result if it beats the probe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.data.images.prepare import prepare
from headstart.data.splits import fewest_per_class, folds, holdout
from headstart.heads.base import fit_temperature
from headstart.heads.training import class_weights
from headstart.records import Array, Codes, Images
from headstart.scratch.losses import cross_entropy
from headstart.sources.features import Place
from headstart.strategies.finetune.options import FinetuneOptions, depths_of
from headstart.strategies.finetune.rules import is_handwriting, settings_for, side_of
from headstart.strategies.finetune.train import FineTuned, starting_head, unfreeze_and_train
from headstart.strategies.fits import Chooser, Reader, Strategy, averaged, fitted
from headstart.system.progress import SILENT, Progress

__all__ = ["FINETUNE_NAMES", "Decision", "DepthTrial", "Finetuner", "finetune_strategies", "sentence_of"]

FINETUNE_NAMES = ("finetune", "finetune, unchecked")
"""Names of the strategy, with and without its comparison with the probe."""


_FEW = 250  # training images below which one held-out part is too small, so folds are used
_FOLDS = 3
_HELD_SHARE, _HELD_MOST = 0.2, 3_000
_LEAST = 1e-12  # probability, before its logarithm
_ERRORS, _PICKED_ERRORS = 1.0, 1.645  # standard errors by which the loss has to be lower
_REFIT = 2_000  # training images below which the network is trained again on the held-out ones, too
Indices = NDArray[np.intp]
Parts = Sequence[tuple[Indices, Indices]]


@dataclass(frozen=True)
class DepthTrial:
    """One depth on held-out images: accuracy, loss in nats, and the number of epochs.

    ``gain`` is how much lower the loss is than the probe's on the same images, ``error`` the standard error
    of that mean difference. ``logits`` are of the held-out images, (n_held, n_classes), fold by fold.
    """

    depth: str
    accuracy: float
    loss: float
    epochs: int = 0
    gain: float = 0.0
    error: float = 0.0
    logits: Array | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class Decision:
    """What was tried, and whether it was better than the probe on the same held-out images.

    ``n_held`` is 0 if a class has too few images to hold any out; then the probe is kept. ``picked`` says
    that these images also selected an epoch. ``truth`` are their classes, in the order of the trials'
    logits.
    """

    probe: DepthTrial | None
    trials: tuple[DepthTrial, ...]
    n_held: int
    picked: bool = False
    truth: Codes | None = field(default=None, repr=False, compare=False)

    @property
    def best(self) -> DepthTrial | None:
        """The most accurate depth, of equals that with the smallest loss; a diverged one comes last."""
        return max(
            self.trials, key=lambda one: (np.isfinite(one.loss), one.accuracy, -one.loss), default=None
        )

    @property
    def errors(self) -> float:
        """How many standard errors lower than the probe's the loss has to be.

        One, as in the rule of Breiman et al. (1984), which keeps the simpler model unless there is evidence
        against it. The loss of a depth or an epoch that was selected on the same images is optimistic, so
        then 1.645, which chance alone exceeds in one of twenty comparisons.
        """
        return _PICKED_ERRORS if self.picked or len(self.trials) > 1 else _ERRORS

    @property
    def accepted(self) -> bool:
        """Whether the fine-tuned network is no less accurate than the probe, its loss lower by `errors`."""
        best, probe = self.best, self.probe
        if best is None or probe is None or probe.accuracy == 1.0:
            return False
        return best.accuracy >= probe.accuracy and best.gain > self.errors * best.error

    @property
    def rule(self) -> str:
        """The condition on which a fine-tuned network replaces the probe."""
        return (
            "no fewer held-out images right than with the probe, and a loss that is lower by more than "
            f"{self.errors:g} standard error{'' if self.errors == 1 else 's'} of the difference"
        )

    @property
    def sentence(self) -> str:
        """Which of the two was kept, with the figures and the rule."""
        probe, best = self.probe, self.best
        if probe is not None and best is None:
            return (
                f"The probe was kept: it gets all {self.n_held:,} held-out images right. Fine-tuning was not tried, "
                "since nothing can be gained."
            )
        if probe is None or best is None:
            return "Fine-tuning was not tried: a class has too few images or groups to hold one out."
        kept = "The fine-tuned network was kept" if self.accepted else "The probe was kept"
        if not np.isfinite(best.loss):
            return f"{kept}: fine-tuning (unfrozen: {best.depth}) diverged, its loss is not finite."
        figures = (
            f"fine-tuned (unfrozen: {best.depth}) {best.accuracy:.2%} of {self.n_held:,} held-out images are "
            f"right with a loss of {best.loss:.4f} nats, with the probe {probe.accuracy:.2%} with "
            f"{probe.loss:.4f}"
        )
        if probe.accuracy == 1.0:
            return f"{kept}: {figures}. Where the probe gets every image right, nothing can be gained."
        change = f"The loss is {'lower' if best.gain > 0 else 'higher'} by {abs(best.gain):.4f}"
        change += f", the threshold is {self.errors * best.error:.4f}"
        return f"{kept}: {figures}. {change}. The rule: {self.rule}."


@dataclass
class Finetuner:
    """Fine-tunes on any subset of a pool and evaluates on other images of it.

    The network is unfrozen where ``chooser``, the probe's, reads. Decisions and probabilities are kept,
    networks are not: those of a study would fill the memory. With ``skips_perfect`` nothing is trained where the
    probe gets every held-out image right, so that no network could replace it.
    """

    reader: Reader
    chooser: Chooser
    finetune: FinetuneOptions = field(default_factory=FinetuneOptions)
    progress: Progress = SILENT
    skips_perfect: bool = False
    decisions: dict[tuple[bytes, int], Decision] = field(default_factory=dict)
    _reusable: dict[tuple[bytes, int], FineTuned] = field(default_factory=dict, repr=False)
    _kept_probabilities: dict[tuple[bytes, bytes, int], Array] = field(default_factory=dict, repr=False)
    _start: tuple[tuple[bytes, int], Any] | None = field(default=None, repr=False)

    def strategy(self, *, checked: bool = True) -> Strategy:
        """The fine-tuned network if accepted, else the probe; without ``checked`` always the network."""

        def strategy(train: Indices, test: Indices, seed: int) -> Array:
            accepted = self.decide(train, seed).accepted
            if (train.tobytes(), seed) in self._reusable:  # predict now, so that the network need not be kept
                self.probabilities(train, test, seed)
            if checked and not accepted:
                return self.probe_probabilities(train, test, seed)
            return self.probabilities(train, test, seed)

        return strategy

    def decide(self, train: Indices, seed: int) -> Decision:
        """Compare the depths with the probe on images held out of the training images."""
        key = train.tobytes(), seed
        if key not in self.decisions:
            self.decisions[key] = self._decided(train, seed)
        return self.decisions[key]

    def finetuned(self, train: Indices, seed: int) -> FineTuned:
        """The fine-tuned network as it is used: trained on all training images, or on most of very many."""
        best = self.decide(train, seed).best
        reusable = self._reusable.pop((train.tobytes(), seed), None)
        if reusable is not None:
            return reusable
        depth = best.depth if best else depths_of(self.finetune.unfreeze)[-1]
        return self._trained(train, None, depth, seed)

    def probabilities(self, train: Indices, test: Indices, seed: int) -> Array:
        """Probabilities of the fine-tuned network, whether it beat the probe or not."""
        key = train.tobytes(), test.tobytes(), seed
        if key not in self._kept_probabilities:
            self._kept_probabilities[key] = self._by_graph(self.finetuned(train, seed), test)
        return self._kept_probabilities[key]

    def _decided(self, train: Indices, seed: int) -> Decision:
        parts = self._parts(train, seed)
        if not parts:
            return Decision(None, (), 0)
        codes = self._codes
        probs = [self.probe_probabilities(rest, held, seed, in_pool=True) for rest, held in parts]
        truth = np.concatenate([codes[held] for _, held in parts])
        probe_logits = np.log(np.maximum(np.concatenate(probs), _LEAST))
        probe_losses = _losses(probe_logits, truth)
        right = probe_logits.argmax(axis=1) == truth
        probe_trial = DepthTrial(
            "probe", float(right.mean()), float(probe_losses.mean()), logits=probe_logits
        )
        if self.skips_perfect and right.all():
            return Decision(probe_trial, (), len(truth), truth=truth)
        trials, kept = [], {}
        for depth in depths_of(self.finetune.unfreeze):
            done = [
                self._trained(rest, held, depth, seed, stops=self._is_reused(train)) for rest, held in parts
            ]
            logits = np.concatenate([one.logits for one in done if one.logits is not None])
            epochs = int(np.median([one.best_epoch for one in done]))
            losses = _losses(logits, truth)
            gain = probe_losses - losses
            trials.append(
                DepthTrial(
                    depth,
                    float((logits.argmax(axis=1) == truth).mean()),
                    float(losses.mean()),
                    epochs,
                    float(gain.mean()),
                    float(gain.std(ddof=1) / np.sqrt(len(gain))),
                    logits,
                )
            )
            kept[depth] = done[0]
            if done[0].n_unfrozen == done[0].n_parts:
                break  # deeper depths are the same
        decision = Decision(probe_trial, tuple(trials), len(truth), self._is_reused(train), truth)
        best = decision.best
        if best and self._is_reused(train):
            self._reusable[train.tobytes(), seed] = kept[best.depth]
        return decision

    def _is_reused(self, train: Indices) -> bool:
        """Whether the evaluated network itself is kept, instead of another one trained on all images."""
        return len(train) >= _REFIT

    def _parts(self, train: Indices, seed: int) -> Parts:
        """Indices of training and held-out images of each fold; none if a class has one image."""
        pool = self.reader.pool
        labels, groups = pool.labels[train], None if pool.cluster_codes is None else pool.cluster_codes[train]
        smallest = fewest_per_class(labels, groups)
        if len(np.unique(labels)) < len(pool.classes) or smallest < 2:
            return ()
        if len(train) < _FEW:
            parts = folds(labels, min(_FOLDS, smallest), seed, groups)
        else:
            share = min(_HELD_SHARE, _HELD_MOST / len(train))
            parts = [holdout(labels, share, seed, groups)]
        return [(train[rest], train[held]) for rest, held in parts]

    def _trained(
        self, train: Indices, held: Indices | None, depth: str, seed: int, *, stops: bool = False
    ) -> FineTuned:
        """One training to the end of its schedule, or with ``stops`` with the weights of its best epoch.

        The best epoch is selected only if this very network is reused; otherwise another training on all
        images follows, which has no held-out images to select an epoch by.
        """
        place, start = self._starting(train, seed)
        source = self.reader.source
        settings = settings_for(
            len(train), side_of(source), self.finetune, seed, handwriting=is_handwriting(source.input)
        )
        if stops:
            settings = replace(settings, patience=settings.epochs)  # the schedule always runs to its end
        elif held is None:
            settings = replace(settings, patience=0)  # even if the settings have one
        codes, finetune = self._codes[train], self.finetune
        if finetune.augmentation is None:  # by default the probe's, if it has one
            finetune = replace(finetune, augmentation=self.chooser.wanted.augmentation)
        task = f"unfreeze {depth}, {len(train):,} images"
        return unfreeze_and_train(
            source,
            place,
            start,
            self._pool_images[train],
            codes,
            self.reader.pool.classes,
            shares=class_weights(codes) if self.chooser.wanted.balance else None,
            finetune=finetune,
            depth=depth,
            settings=settings,
            held=None if held is None else (self._pool_images[held], self._codes[held]),
            used=stops or held is None,
            loss=lambda logits, truth: float(_losses(logits, truth).mean()),
            on_step=lambda done, total, loss, accuracy: self.progress.step(
                task, done, total, f"loss {loss:.3f}  accuracy {accuracy:.2%}"
            ),
        )

    def _starting(self, train: Indices, seed: int) -> tuple[Place, Any]:
        """Where the probe reads, and the head that training starts from: the same for every depth."""
        key = train.tobytes(), seed
        if self._start is None or self._start[0] != key:
            place, name = self.chooser(train, seed)[0]
            rows, _, images = self.reader.training(place, train)
            probe = fitted(self.reader, place, name, train, seed, balance=self.chooser.wanted.balance)
            head = starting_head(probe, rows, self._codes[train][images], self.reader.pool.classes, seed)
            self._start = key, (place, head)
        found: tuple[Place, Any] = self._start[1]
        return found

    def probe_probabilities(
        self, train: Indices, test: Indices, seed: int, *, in_pool: bool = False
    ) -> Array:
        """Probabilities of the probe for test images, or with ``in_pool`` for images of the pool."""
        readings, balance = self.chooser(train, seed), self.chooser.wanted.balance
        return averaged(self.reader, readings, train, test, seed, balance=balance, in_pool=in_pool)

    def _by_graph(self, finetuned: FineTuned, test: Indices) -> Array:
        """Probabilities by the graph that would be saved, so that the figures are those of the model."""
        import onnx

        from headstart.graph import build, pooling
        from headstart.graph import run as runtime

        source, place = finetuned.source, finetuned.place
        graph = onnx.ModelProto.FromString(source.graph)
        builder = build.GraphBuilder(build.with_outputs(graph, place[0].split(pooling.JOIN)))
        name = finetuned.head.append(builder, pooling.read(builder, source.layers, *place))
        compiled = runtime.compile_graph(
            builder.model([name]), precision="fp32", batch_size=source.batch_size
        )
        images = self._test_images[test]
        return compiled.run(runtime.split_batches(images, source.batch_size), len(images))

    @cached_property
    def _codes(self) -> Codes:
        return self.reader.pool.codes()

    @cached_property
    def _pool_images(self) -> Images:
        return prepare(self.reader.pool, self.reader.source.input)

    @cached_property
    def _test_images(self) -> Images:
        same = self.reader.test is self.reader.pool
        return self._pool_images if same else prepare(self.reader.test, self.reader.source.input)


def finetune_strategies(finetuner: Finetuner) -> dict[str, Strategy]:
    """The strategy finetune, and the same without the comparison with the probe, by name."""
    safe, unchecked = FINETUNE_NAMES
    return {safe: finetuner.strategy(), unchecked: finetuner.strategy(checked=False)}


def sentence_of(decisions: Mapping[tuple[bytes, int], Decision]) -> str:
    """How often the fine-tuned network was kept."""
    compared = [one for one in decisions.values() if one.n_held]
    taken = [one for one in compared if one.accepted]
    depths = sorted({one.best.depth for one in taken if one.best is not None})
    how = f" (unfrozen: {', '.join(depths)})" if depths else ""
    rule = f" The rule: {compared[0].rule}." if compared else ""
    alone = len(decisions) - len(compared)
    rest = (
        f" {alone} fit{'s' if alone > 1 else ''} had too few images or groups to hold any out: "
        "the probe was kept."
        if alone
        else ""
    )
    return (
        f"The fine-tuned network was better than the probe on held-out images, and was kept, in {len(taken)} "
        f"of {len(compared)} fits{how}; in the others the probe was kept.{rule}{rest}"
    )


def _losses(logits: Array, truth: Codes) -> Array:
    """Loss of each image in nats after temperature scaling: the level of confidence is not compared."""
    losses, _ = cross_entropy(logits.astype(np.float64) * fit_temperature(logits, truth), truth)
    return losses
