"""A served model with its network: batches that fit its speed, checked outputs, predictions as the API describes."""

from __future__ import annotations

import math
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from headstart.errors import ModelError
from headstart.graph.online import OnlineRun
from headstart.interfaces.http.batching import Batcher
from headstart.interfaces.http.limits import RequestError, printable
from headstart.interfaces.http.metrics import ServerMetrics
from headstart.interfaces.http.uploads import Upload
from headstart.models.answer_sets import AnswerSets, answer_sets
from headstart.models.model import Model
from headstart.models.outputs import checked_outputs
from headstart.records import NONE_OF_THESE, Array, Images

__all__ = ["Served", "Share"]

# A batch takes 20 ms at most: batching saves the cost of a call, which matters only for fast networks.
# A batch in the loop's own thread takes less.
_LARGEST_BATCH, _BATCH_S, _HELD_S = 32, 0.02, 0.01
_QUICK_S, _MOST_TRIALS = 0.001, 30
_LONG = "left_out"  # hundreds of numbers
_LARGEST_NOVELTY = 1e9  # JSON has no infinity


@dataclass(frozen=True)
class Share:
    """What one of several workers may use of the machine.

    ``n_threads`` decode images, and as many run each network (default: one per core); ``n_lanes`` batches at
    a time of each network; ``turn`` is held while a large image is decoded.
    """

    n_threads: int | None = None
    n_lanes: int | None = None
    turn: AbstractContextManager[object] = field(default_factory=nullcontext)


class Served:
    """A model with its network, ready to predict."""

    def __init__(self, name: str, model: Model, metrics: ServerMetrics, precision: str, share: Share) -> None:
        self.name, self.model = name, model
        run = OnlineRun(model.graph, precision=precision, n_threads=share.n_threads, n_lanes=share.n_lanes)
        image_s = _seconds(run, model)
        # With one core a fast network needs no thread of its own.
        at_once = share.n_threads == 1 and image_s < _QUICK_S
        self._run = run
        self.batcher = Batcher(
            self._outputs,
            n_lanes=run.n_lanes,
            largest=max(1, min(_LARGEST_BATCH, int((_HELD_S if at_once else _BATCH_S) / image_s))),
            seen=metrics.batches(name),
            at_once=at_once,
        )
        manifest = model.manifest
        self.about = {
            "name": name,
            "classes": list(manifest.classes),
            "input": asdict(manifest.input),
            "strategy": manifest.strategy,
            **{
                key: {name: one for name, one in getattr(manifest, key).items() if name != _LONG}
                for key in ("data", "source", "novelty", "calibration", "scores")
            },
        }

    def sets(self, level: float | None) -> AnswerSets | None:
        """The rule for answer sets at a level; an error response for a model without left-out scores."""
        try:
            return None if level is None else answer_sets(self.model.manifest, level)
        except ModelError as error:
            raise RequestError(422, str(error)) from error

    def _outputs(self, images: Images) -> tuple[Array, ...]:
        """Whether the outputs of the whole batch are probabilities, for each image, and the outputs."""
        outputs = self._run(images)
        try:
            checked_outputs(outputs, len(self.model.classes), self.name)
        except ModelError:
            return np.zeros(len(images), np.float32), *outputs
        return np.ones(len(images), np.float32), *outputs

    def checked(self, found: tuple[Array, ...]) -> tuple[Array, ...]:
        """The outputs for one image, if they are probabilities: other images of its batch may be right."""
        are_checked, *outputs = found
        if not are_checked:
            try:
                checked_outputs(tuple(one[None] for one in outputs), len(self.model.classes), self.name)
            except ModelError as error:
                raise RequestError(500, str(error)) from error
        return tuple(outputs)

    def prediction(
        self, upload: Upload, outputs: tuple[Array, ...], top: int, rule: AnswerSets | None
    ) -> dict[str, Any]:
        """One prediction, as the API's document describes it."""
        probabilities = outputs[0]
        order = np.argsort(-probabilities, kind="stable")[:top]
        classes = [
            {"name": self.model.classes[index], "probability": _rounded(probability)}
            for index, probability in zip(order.tolist(), probabilities[order].tolist(), strict=True)
        ]
        novelty = None if len(outputs) == 1 else _finite(float(outputs[1]))
        return {
            "file": None if upload.name is None else printable(upload.name),
            "class": NONE_OF_THESE if novelty is not None and novelty > 1 else classes[0]["name"],
            "probability": classes[0]["probability"],
            "novelty": novelty,
            "classes": classes,
            **(
                {} if rule is None else {"answer_set": rule.names(probabilities[None], self.model.classes)[0]}
            ),
        }


def _seconds(run: OnlineRun, model: Model) -> float:
    """Seconds for one image: the minimum, because first runs are slow and others may use the machine."""
    image = np.zeros((1, *model.manifest.input.shape), np.uint8)
    seconds: list[float] = []
    while len(seconds) < 3 * run.n_lanes or (len(seconds) < _MOST_TRIALS and sum(seconds) < _BATCH_S):
        begun = time.perf_counter()
        run(image)
        seconds.append(time.perf_counter() - begun)
    return min(seconds)


def _rounded(probability: float) -> float:
    return min(1.0, max(0.0, round(probability, 6)))


def _finite(novelty: float) -> float:
    return round(min(novelty, _LARGEST_NOVELTY), 6) if math.isfinite(novelty) else _LARGEST_NOVELTY
