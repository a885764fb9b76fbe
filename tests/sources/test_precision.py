"""A head is fitted on features of the precision that the saved model computes in."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from headstart.data.dataset import Dataset
from headstart.heads.ridge import RidgeHead
from headstart.records import Array
from headstart.sources.features import Extraction, extract
from headstart.sources.registry import open_source
from headstart.strategies.places import Probe
from headstart.strategies.probe import learn_head


def test_training_features_are_those_of_the_saved_graph(
    digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where bf16 was asked for, on a processor that has it: rounded features would differ by 0.4 %."""
    seen: list[Array] = []
    fit = RidgeHead.fit

    def watched(self: RidgeHead, features: Array, *rest: Any, **more: Any) -> RidgeHead:
        seen.append(np.array(features))
        return fit(self, features, *rest, **more)

    monkeypatch.setattr(RidgeHead, "fit", watched)
    some = digits.subset(np.arange(64))
    source = open_source("random:cnn", some)
    options = Extraction(precision="auto")
    model = learn_head(source, some, Probe("block2", "avg", "ridge"), options=options, spare=False).model
    saved = extract(some, model.source(), layer="block2", pooling="avg", options=Extraction(precision="fp32"))
    scale = np.abs(saved).mean()
    assert np.abs(seen[-1] - saved).max() < 1e-4 * scale
