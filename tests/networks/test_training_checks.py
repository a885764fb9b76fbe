"""What is said of a training that diverged or learned nothing, and of none that did neither."""

from __future__ import annotations

from math import inf, nan
from pathlib import Path

import numpy as np
import pytest

import headstart
from command import Run
from headstart.data import from_arrays
from headstart.errors import DivergedError
from headstart.networks.remarks import check_finite, training_remarks
from headstart.records import Epoch, TrainSettings
from headstart.workflows.train.request import checkpoints_of

CODES = np.repeat([0, 1, 2], [60, 30, 30])
HELD = np.repeat([0, 1, 2], [50, 25, 25])
FINE = {"w": np.ones(3, np.float32)}


def epoch(number: int, train: tuple[float, float], held: tuple[float, float] = (nan, nan)) -> Epoch:
    return Epoch(number, *train, *held, 0.1, 1.0)


@pytest.mark.parametrize(
    ("right", "said"), [(0.1, True), (0.50, True), (0.57, True), (0.60, False), (0.9, False)]
)
def test_the_commonest_class_has_to_be_beaten_significantly(right: float, said: bool) -> None:
    """Of 100 with a share of one half, 59 right are one of 23 chances and 58 one of 15."""
    for found in (
        training_remarks([epoch(1, (0.5, 0.9), (0.6, right))], None, CODES, HELD),
        training_remarks([epoch(1, (0.6, right))], None, HELD, None),
    ):
        assert len(found) == said
        if said:
            assert (
                f"{right:.2%} of 100" in found[0]
                and "the most frequent class is right for 50.00%" in found[0]
            )


def test_what_is_judged_are_the_weights_that_were_kept() -> None:
    history = [epoch(1, (1.0, 0.8), (0.5, 0.9)), epoch(2, (1.0, 0.9), (9.0, 0.5))]
    assert training_remarks(history, 1, CODES, HELD) == ()
    (remark,) = training_remarks(history, None, CODES, HELD)
    assert "its loss of 9 nats is above the 1.1 of guessing" in remark


def test_an_epoch_that_diverged_is_named_and_weights_that_are_not_finite_are_refused() -> None:
    history = [epoch(1, (1.0, 0.8), (0.5, 0.9)), epoch(2, (nan, 0.3), (nan, 0.5))]
    assert training_remarks(history, 1, CODES, HELD) == (
        "Training diverged: the loss was not finite from epoch 2 on; the weights of epoch 1 were kept.",
    )
    check_finite(history, 1, FINE)
    check_finite([epoch(1, (1.0, 0.5))], None, FINE)  # nothing held out
    for kept, weights in ((None, FINE), (1, {"w": np.array([1.0, inf], np.float32)})):
        with pytest.raises(DivergedError, match="diverged: loss is nan in epoch 2, expected finite"):
            check_finite(history, kept, weights)


SMALL = ("--network", "mlp", "--engine", "scratch", "--epochs", "2")


def test_a_training_that_learned_nothing_says_so_everywhere(run: Run, desk: Path) -> None:
    said = run("train", "digits", "-o", "m", *SMALL, "--learning-rate", "1e-9")
    assert said.code == 0
    for text in (said.err, said.out, (desk / "m" / "report.html").read_text()):
        assert "not significantly better than always predicting the most frequent class" in text
    assert "most frequent class" not in run("train", "digits", "-o", "m", *SMALL).err


def test_a_training_that_ran_away_says_so(run: Run, desk: Path) -> None:
    """Finite numbers, and features that are all dead."""
    said = run("train", "digits", "-o", "m", *SMALL, "--learning-rate", "1e6")
    assert said.code == 0 and "nats is above the 2.3 of guessing" in said.err


@pytest.mark.parametrize("engine", ["scratch", "torch"])
def test_a_training_that_is_not_finite_is_one_sentence(run: Run, desk: Path, engine: str) -> None:
    words = ("--network", "mlp", "--engine", engine, "--epochs", "2", "--optimizer", "sgd")
    said = run("train", "digits", "-o", "m", *words, "--learning-rate", "1e30")
    assert said.code == 1 and said.out == "" and said.err.count("\n") == 1
    assert "error: training diverged: loss is nan in epoch" in said.err
    assert "lower the learning rate (now 1e+30)" in said.err
    assert not checkpoints_of(desk / "m").exists() and not (desk / "m").exists()


def test_python_is_warned() -> None:
    rng = np.random.default_rng(0)
    data = from_arrays(rng.integers(0, 256, (60, 8, 8), dtype=np.uint8), ["a", "b"] * 30)
    settings = TrainSettings(epochs=1, learning_rate=1e-9)
    with pytest.warns(UserWarning, match="most frequent class"):
        headstart.train(data, network="mlp", engine="scratch", settings=settings)
