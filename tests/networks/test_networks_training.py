"""The training loop: what it records, when it stops, how fast it learns, which images it skips."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from headstart.data.dataset import Dataset
from headstart.data.stores import ArrayImages
from headstart.errors import SettingError, ShapeError
from headstart.networks.contract import TrainableNetwork
from headstart.networks.engines.registry import make_network
from headstart.networks.specs import architecture
from headstart.networks.training import fit, measure
from headstart.records import Array, Codes, Images, InputSpec, NetworkSpec, TrainSettings, Weights

SPEC = architecture("mlp", InputSpec(8, 8, 1), 10)
Data = tuple[Images, Codes]


class Recorder:
    """A network that learns nothing, notes what it is given, and loses what it is told to."""

    engine = "recorder"
    spec: NetworkSpec = SPEC

    def __init__(self, losses: Array | None = None, held: tuple[float, ...] = ()) -> None:
        self.losses, self.held = losses, held
        self.batches: list[NDArray[np.intp]] = []
        self.rates: list[float] = []
        self.shares: list[Array | None] = []
        self.measured = 0
        self.loaded: Weights | None = None

    def start(self, settings: TrainSettings, n_steps: int = 0) -> None:
        self.settings = settings

    def state(self) -> dict[str, NDArray[Any]]:
        return {}

    def load_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        pass

    def train_step(
        self, images: Images, labels: Codes, learning_rate: float, weights: Array | None = None
    ) -> tuple[Array, NDArray[np.bool_]]:
        """Images carry their own number in two bytes."""
        numbers = images[:, 0, 0, 0].astype(int) * 256 + images[:, 0, 1, 0]
        self.batches.append(numbers)
        self.rates.append(learning_rate)
        self.shares.append(weights)
        losses = np.ones(len(images), np.float32) if self.losses is None else self.losses[numbers]
        return losses, labels == 0

    def logits(self, images: Images) -> Array:
        """Two classes, the loss of class 0 as told."""
        loss = self.held[self.measured]
        self.measured += 1
        gap = np.log(np.expm1(loss))  # softplus(gap) == loss
        return np.tile(np.array([0.0, gap], np.float32), (len(images), 1))

    def weights(self) -> Weights:
        return {"taken.after": np.array([self.measured], np.float32)}

    def load_weights(self, weights: Weights) -> None:
        self.loaded = weights

    def freeze(self, through: str) -> None:
        raise NotImplementedError

    def replace_head(self, n_classes: int, seed: int) -> None:
        raise NotImplementedError


def numbered(n_images: int) -> Data:
    images = np.zeros((n_images, 8, 8, 1), np.uint8)
    images[:, 0, 0, 0], images[:, 0, 1, 0] = np.divmod(np.arange(n_images), 256)
    return images, np.zeros(n_images, np.int64)


def settings(**changes: Any) -> TrainSettings:
    return replace(TrainSettings(epochs=2, batch_size=32, precision="fp32"), **changes)


@pytest.fixture(scope="session")
def data(digits: Dataset) -> Data:
    assert isinstance(digits.images, ArrayImages)
    return digits.images.pixels[:400].copy(), digits.codes()[:400]


@pytest.fixture
def held(digits: Dataset) -> Data:
    assert isinstance(digits.images, ArrayImages)
    return digits.images.pixels[400:600].copy(), digits.codes()[400:600]


def test_history_has_a_line_per_epoch(data: Data, held: Data) -> None:
    network = make_network(SPEC, "scratch")
    first = measure(network, *data)[0]
    history = fit(network, *data, settings(epochs=4, learning_rate=3e-3), validation=held)
    assert [epoch.number for epoch in history] == [1, 2, 3, 4]
    assert history[-1].train_loss < history[0].train_loss < first * 1.2
    assert history[-1].train_accuracy > history[0].train_accuracy
    assert (history[-1].val_loss, history[-1].val_accuracy) == measure(network, *held)
    assert all(epoch.seconds > 0 and epoch.learning_rate == 3e-3 for epoch in history)


def test_without_validation_its_figures_are_nan(data: Data) -> None:
    (epoch,) = fit(make_network(SPEC, "scratch"), *data, settings(epochs=1))
    assert np.isnan(epoch.val_loss) and np.isnan(epoch.val_accuracy) and epoch.train_loss > 0


def test_measure_is_cross_entropy_and_leaves_the_network(data: Data) -> None:
    network = make_network(SPEC, "scratch")
    before, logits = network.weights(), network.logits(data[0]).astype(float)
    loss, accuracy = measure(network, *data)
    probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert loss == pytest.approx(-np.log(probs[np.arange(400), data[1]]).mean())
    assert accuracy == (logits.argmax(axis=1) == data[1]).mean()
    assert all(np.array_equal(value, before[name]) for name, value in network.weights().items())


@pytest.mark.parametrize("n_images", [1, 31, 32, 33, 97, 98])
def test_every_epoch_visits_every_image_once(n_images: int) -> None:
    network = Recorder()
    fit(network, *numbered(n_images), settings(epochs=3))
    sizes = {1: [1], 31: [31], 32: [32], 33: [33], 97: [32, 32, 33], 98: [32, 32, 32, 2]}[n_images]
    per_epoch = len(sizes)
    assert [len(batch) for batch in network.batches[:per_epoch]] == sizes
    epochs = [np.concatenate(network.batches[i * per_epoch : (i + 1) * per_epoch]) for i in range(3)]
    assert all(sorted(epoch) == list(range(n_images)) for epoch in epochs)
    if n_images > 31:
        assert not np.array_equal(epochs[0], epochs[1]), "each epoch has an order of its own"


def test_a_small_last_batch_counts_by_its_images() -> None:
    losses = np.r_[np.zeros(32), np.full(1, 33.0)].astype(np.float32)
    (epoch,) = fit(Recorder(losses), *numbered(33), settings(epochs=1))
    assert epoch.train_loss == pytest.approx(1.0) and epoch.train_accuracy == 1.0


def test_progress_counts_up_to_the_whole() -> None:
    said: list[tuple[int, int, float, float]] = []
    fit(Recorder(), *numbered(70), settings(epochs=2), on_step=lambda *what: said.append(what))
    assert [what[:2] for what in said] == [(32, 70), (64, 70), (70, 70)] * 2
    assert said[-1][2:] == (1.0, 1.0)


def test_patience_stops_and_brings_the_best_back() -> None:
    network = Recorder(held=(0.9, 0.5, 0.7, 0.6, 0.8, 0.1))
    history = fit(network, *numbered(40), settings(epochs=9, patience=3), validation=numbered(5))
    assert [round(epoch.val_loss, 3) for epoch in history] == [0.9, 0.5, 0.7, 0.6, 0.8]
    assert network.loaded is not None and network.loaded["taken.after"] == 2  # as after the second epoch


def test_patience_brings_the_best_back_when_the_epochs_run_out() -> None:
    network = Recorder(held=(0.5, 0.7, 0.6))
    assert len(fit(network, *numbered(40), settings(epochs=3, patience=5), validation=numbered(5))) == 3
    assert network.loaded is not None and network.loaded["taken.after"] == 1


def test_without_patience_the_last_weights_stay() -> None:
    network = Recorder(held=(0.5, 0.7))
    fit(network, *numbered(40), settings(), validation=numbered(5))
    assert network.loaded is None


def test_the_best_weights_are_a_real_network_s(data: Data, held: Data) -> None:
    """A rate that wrecks the network after it was good."""
    network = make_network(SPEC, "scratch")
    wild = settings(epochs=12, patience=12, learning_rate=0.03, batch_size=16)
    history = fit(network, *data, wild, validation=held)
    best = min(epoch.val_loss for epoch in history)
    assert measure(network, *held)[0] == best
    assert history[-1].val_loss > best


def test_one_cycle_climbs_for_a_fifth_and_falls_to_zero() -> None:
    network = Recorder()
    history = fit(network, *numbered(320), settings(epochs=10, learning_rate=0.5, schedule="one-cycle"))
    rates = np.array(network.rates)
    done = (np.arange(100) + 0.5) / 100  # in the middle of each step
    np.testing.assert_allclose(rates, 0.5 * np.minimum(done / 0.2, (1 - done) / 0.8), rtol=1e-9)
    assert rates.argmax() in (19, 20) and 0 < rates.min() and rates.max() <= 0.5
    assert history[-1].learning_rate == rates[-1]


def test_constant_is_constant() -> None:
    network = Recorder()
    fit(network, *numbered(100), settings(learning_rate=0.5))
    assert set(network.rates) == {0.5}


@pytest.mark.parametrize(("min_steps", "epochs"), [(0, 2), (8, 2), (9, 3), (40, 10)])
def test_min_steps_raises_the_epochs_of_a_tiny_set(min_steps: int, epochs: int) -> None:
    network = Recorder()
    history = fit(network, *numbered(100), settings(min_steps=min_steps))
    assert len(history) == epochs and len(network.batches) == 4 * epochs >= min_steps


def skewed(n_images: int = 2_000) -> Array:
    """A few hard images, most easy: nine in ten lie below the mean."""
    rng = np.random.default_rng(0)
    return np.where(rng.random(n_images) < 0.1, 10.0, 0.1).astype(np.float32)


def by_epoch(network: Recorder, n_epochs: int, n_images: int) -> list[tuple[NDArray[np.intp], Array]]:
    """Images and shares of each epoch: an epoch ends where an image would come a second time."""
    found: list[tuple[list[Any], list[Any]]] = []
    for numbers, shares in zip(network.batches, network.shares, strict=True):
        if not found or set(numbers) & set(np.concatenate(found[-1][0])):
            found.append(([], []))
        found[-1][0].append(numbers)
        found[-1][1].append(np.ones(len(numbers), np.float32) if shares is None else shares)
    return [(np.concatenate(numbers), np.concatenate(shares)) for numbers, shares in found]


def test_pruning_skips_easy_images_and_weighs_the_others_up() -> None:
    losses, network = skewed(), Recorder(skewed())
    history = fit(network, *numbered(2_000), settings(epochs=5, batch_size=100, prune=0.5))
    epochs = by_epoch(network, 5, 2_000)
    assert len(epochs) == 5
    assert len(epochs[0][0]) == 2_000 and set(epochs[0][1]) == {1.0}, "nothing is known yet"
    hard = set(np.flatnonzero(losses > 1))
    for numbers, shares in epochs[1:4]:
        assert hard <= set(numbers), "hard images are always seen"
        assert 0.5 * 1_800 - 100 < len(numbers) - len(hard) < 0.5 * 1_800 + 100
        easy = ~np.isin(numbers, sorted(hard))
        assert set(shares[easy]) == {2.0} and set(shares[~easy]) == {1.0}
        assert shares.sum() / 2_000 == pytest.approx(1.0, abs=0.05), "in the mean nobody counts for more"
    assert not np.array_equal(np.sort(epochs[1][0]), np.sort(epochs[2][0])), "each epoch skips others"
    for epoch in history:
        assert epoch.train_loss == pytest.approx(losses.mean(), rel=0.05)


def test_pruning_keeps_to_the_schedule() -> None:
    network = Recorder(skewed())
    fit(network, *numbered(2_000), settings(epochs=5, batch_size=100, prune=0.5, schedule="one-cycle"))
    rates = np.array(network.rates)
    assert rates.min() > 0 and rates[-1] < 0.02 * rates.max()
    assert rates.max() == pytest.approx(1e-3, rel=0.05)


def test_no_prune_no_shares() -> None:
    network = Recorder(skewed(100))
    fit(network, *numbered(100), settings())
    assert network.shares == [None] * len(network.batches)


def test_what_is_easy_is_judged_by_the_last_loss_seen() -> None:
    network = Recorder(skewed())
    fit(network, *numbered(2_000), settings(epochs=2, batch_size=100, prune=0.999))
    last = by_epoch(network, 2, 2_000)[-1][0]
    assert set(np.flatnonzero(skewed() > 1)) <= set(last)


@pytest.mark.parametrize("engine", ["scratch", "torch"])
@pytest.mark.parametrize("changes", [{}, {"prune": 0.3, "schedule": "one-cycle", "epochs": 3}])
def test_a_seed_decides_everything(engine: str, changes: dict[str, Any], data: Data, held: Data) -> None:
    if engine == "torch":
        pytest.importorskip("torch")

    def run(seed: int) -> tuple[TrainableNetwork, list[tuple[float, ...]]]:
        network = make_network(architecture("mlp-wide", InputSpec(8, 8, 1), 10), engine, 1)
        np.random.seed(seed)  # the global generator must not matter
        history = fit(network, *data, settings(seed=seed, **changes), validation=held)
        return network, [(epoch.train_loss, epoch.val_loss) for epoch in history]

    (one, first), (other, second), (third, _) = run(3), run(3), run(4)
    assert first == second
    assert all(np.array_equal(value, other.weights()[name]) for name, value in one.weights().items())
    assert not np.array_equal(one.weights()["output.weight"], third.weights()["output.weight"])


@pytest.mark.parametrize("engine", ["scratch", "torch"])
def test_it_learns_real_digits(engine: str, data: Data, held: Data) -> None:
    if engine == "torch":
        pytest.importorskip("torch")
    network = make_network(SPEC, engine)
    fast = settings(epochs=15, learning_rate=5e-3, schedule="one-cycle")
    assert fit(network, *data, fast, validation=held)[-1].val_accuracy > 0.8


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"schedule": "onecycle"},
            "schedule is 'onecycle', expected one of constant, cosine, one-cycle; nearest are one-cycle",
        ),
        ({"epochs": 0}, "epochs is 0, batch_size 32, expected both at least 1"),
        ({"batch_size": 0}, "epochs is 2, batch_size 0, expected both at least 1"),
        ({"prune": 1.0}, r"prune is 1.0, expected a share in \[0, 1\)"),
        ({"prune": -0.1}, r"prune is -0.1, expected a share in \[0, 1\)"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0, expected a number above 0"),
        ({"learning_rate": float("nan")}, "learning_rate is nan, expected a number above 0"),
        (
            {"patience": 2},
            "patience is 2 without validation images, expected some to stop by; hold out a share",
        ),
        ({"optimizer": "adma"}, "optimizer is 'adma', expected one of adam, adamw, sgd; nearest are adam"),
    ],
)
def test_a_setting_without_meaning_is_one_sentence(
    data: Data, changes: dict[str, Any], sentence: str
) -> None:
    network = make_network(SPEC, "scratch")
    before = network.weights()
    with pytest.raises(SettingError, match=sentence):
        fit(network, *data, settings(**changes))
    assert all(np.array_equal(value, before[name]) for name, value in network.weights().items())


def test_all_faults_of_a_call_are_told_together(data: Data) -> None:
    with pytest.raises(SettingError, match=r"epochs is 0.*; prune is 2.*; learning_rate is -1"):
        fit(Recorder(), *data, settings(epochs=0, prune=2, learning_rate=-1))


@pytest.mark.parametrize(("n_images", "n_labels"), [(0, 0), (3, 2), (2, 3)])
def test_images_and_labels_must_match(n_images: int, n_labels: int) -> None:
    with pytest.raises(
        ShapeError, match=f"images has length {n_images}, labels {n_labels}, expected equal lengths"
    ):
        fit(Recorder(), numbered(n_images)[0], numbered(n_labels)[1], settings())


def test_images_count_as_they_are_told_to() -> None:
    images, labels = numbered(8)
    network, shares = Recorder(), np.arange(8, dtype=np.float32)
    fit(network, images, labels, TrainSettings(epochs=1, batch_size=4), shares=shares)
    for batch, given in zip(network.batches, network.shares, strict=True):
        assert given is not None
        assert np.array_equal(given, shares[batch])
