"""Batches made ahead in a thread: the same batches, in the same order, with the same weights in the end."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from headstart.data.images.augment import parse_augmentation
from headstart.errors import ShapeError
from headstart.networks import ahead as module
from headstart.networks.ahead import Batches
from headstart.networks.engines.registry import make_network
from headstart.networks.schedule import Plan
from headstart.networks.specs import architecture
from headstart.networks.training import fit
from headstart.records import Images, InputSpec, TrainSettings, Weights
from headstart.strategies.judge import augmented_training

rng = np.random.default_rng(0)
IMAGES = rng.integers(0, 256, (65, 12, 12, 1)).astype(np.uint8)
CODES = rng.integers(0, 3, 65)
SETTINGS = TrainSettings(epochs=3, batch_size=16, learning_rate=1e-3, prune=0.5)


def cores(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr(module, "allowed_cores", lambda: number)


def trained(engine: str, augment: Callable[..., Images] | None) -> Weights:
    network = make_network(architecture("mlp", InputSpec(12, 12, 1), 3), engine, 1)
    fit(network, IMAGES, CODES, SETTINGS, augment=augment)
    return network.weights()


@pytest.mark.parametrize("engine", ["scratch", "torch"])
def test_the_weights_are_the_same_to_the_bit(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("kornia", reason="augmentation needs it")
    made = augmented_training(parse_augmentation("handwriting"), 5)
    found = []
    for number in (1, 2):
        cores(monkeypatch, number)
        found.append(trained(engine, made))
    plain = trained(engine, None)
    for name, one in found[0].items():
        assert np.array_equal(one, found[1][name]), name
    assert any(not np.array_equal(plain[name], found[0][name]) for name in plain)


Call = tuple[int, list[int], bool]


def watching(calls: list[Call]) -> Callable[[Images, NDArray[np.intp], int], Images]:
    """An augmentation that changes nothing and notes epoch, positions, and whether it runs in the main thread."""

    def augment(batch: Images, indices: NDArray[np.intp], epoch: int) -> Images:
        assert np.array_equal(batch, IMAGES[indices])
        calls.append((epoch, indices.tolist(), threading.current_thread() is threading.main_thread()))
        return batch

    return augment


def test_every_batch_is_made_once_in_order_and_all_but_the_first_of_an_epoch_ahead(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: dict[int, list[Call]] = {1: [], 2: []}
    for number, seen in calls.items():
        cores(monkeypatch, number)
        trained("scratch", watching(seen))
    assert [one[:2] for one in calls[1]] == [one[:2] for one in calls[2]]
    assert all(here for *_, here in calls[1])
    first = [n == 0 or calls[2][n - 1][0] != one[0] for n, one in enumerate(calls[2])]
    assert [here for *_, here in calls[2]] == first and sum(first) == 3


def test_the_next_batch_is_made_while_the_network_learns_from_this_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The step waits for it here, which would never end if it were made after the step."""
    cores(monkeypatch, 2)
    made: list[int] = []
    ready = threading.Condition()

    def augment(batch: Images, indices: NDArray[np.intp], epoch: int) -> Images:
        with ready:
            made.append(epoch)
            ready.notify_all()
        return batch

    network = make_network(architecture("mlp", InputSpec(12, 12, 1), 3), "scratch", 1)
    step, steps = network.train_step, []

    def waiting(images: Images, *rest: object) -> object:
        steps.append(len(images))
        last_of_epoch = len(steps) % 4 == 0  # 65 images are 4 batches: the last one has 17
        with ready:
            assert ready.wait_for(lambda: len(made) >= len(steps) + (not last_of_epoch), timeout=60)
        return step(images, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(network, "train_step", waiting)
    fit(network, IMAGES, CODES, TrainSettings(epochs=2, batch_size=16), augment=augment)
    assert steps == [16, 16, 16, 17] * 2 and len(made) == 8


def test_an_error_of_the_augmentation_ends_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    cores(monkeypatch, 2)
    before = threading.active_count()

    def augment(batch: Images, indices: NDArray[np.intp], epoch: int) -> Images:
        if epoch == 2:
            raise ShapeError("the second epoch is broken")
        return batch

    with pytest.raises(ShapeError, match="second epoch"):
        trained("scratch", augment)
    assert threading.active_count() == before


def test_nothing_is_made_in_a_thread_without_an_augmentation() -> None:
    with Batches(IMAGES, None, ahead=True) as batches:
        before = threading.active_count()
        first = batches.get(1, np.arange(4), np.arange(4, 8))
        assert np.array_equal(first, IMAGES[:4]) and threading.active_count() == before


def test_a_batch_that_was_not_announced_is_made_when_it_is_wanted() -> None:
    with Batches(IMAGES, lambda batch, indices, epoch: batch + np.uint8(epoch), ahead=True) as batches:
        batches.get(1, np.arange(4), np.arange(4, 8))
        for epoch, some in ((1, np.arange(8, 12)), (2, np.arange(4, 8))):
            found = batches.get(epoch, some, np.arange(4, 8))
            assert np.array_equal(found, IMAGES[some] + np.uint8(epoch))


@pytest.mark.parametrize("n_images", [1, 16, 17, 40])
def test_a_plan_knows_the_batch_that_follows(n_images: int) -> None:
    plan, order = Plan(n_images, in_batches_of(16)), np.random.default_rng(0)
    for _ in range(2):
        plan.begin(order)
        following = None
        while plan.more:
            indices, _ = plan.batch()
            assert following is None or np.array_equal(indices, following)
            following = plan.following
        assert following is None


def in_batches_of(size: int) -> TrainSettings:
    return TrainSettings(epochs=2, batch_size=size)


def test_cores_are_those_that_the_process_may_use() -> None:
    assert 1 <= module.allowed_cores()
