"""A network whose weights are finite and whose outputs are of no use has diverged."""

from __future__ import annotations

import numpy as np
import pytest

from headstart.data.dataset import Dataset
from headstart.errors import DivergedError
from headstart.networks.remarks import check_outputs
from headstart.records import TrainSettings
from headstart.strategies.scratch import learn_network


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e13, -1e13])
def test_outputs_that_cannot_be_used(value: float) -> None:
    with pytest.raises(DivergedError, match=r"training diverged: outputs .*, expected .*\(now 0\.5\)"):
        check_outputs(np.array([1.0, value], np.float32), 0.5)


def test_other_outputs_come_back() -> None:
    for outputs in (np.array([-1e6, 1e6], np.float32), np.empty((0, 3), np.float32)):
        assert check_outputs(outputs, 0.5) is outputs


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # overflows are what is tested
@pytest.mark.parametrize("rate", [1e15, 1e25])
def test_one_step_too_large_is_one_sentence(digits: Dataset, rate: float) -> None:
    settings = TrainSettings(epochs=1, batch_size=512, learning_rate=rate, optimizer="sgd")
    with pytest.raises(DivergedError, match="lower the learning rate"):
        learn_network(digits.subset(np.arange(60)), network="mlp", engine="scratch", settings=settings)
