"""The test of learning rates: what it suggests, when it gives up, and that it leaves no trace."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from headstart.errors import SettingError, ShapeError
from headstart.networks.engines.registry import make_network
from headstart.networks.rate_test import FlatLossError, RateCurve, find_rate
from headstart.networks.specs import architecture
from headstart.networks.training import fit, measure
from headstart.records import Array, Codes, Images, InputSpec, TrainSettings, Weights
from headstart.report import svg as diagrams

Data = tuple[Images, Codes]


@pytest.fixture(scope="module")
def digits() -> Data:
    from sklearn.datasets import load_digits

    data = load_digits()
    return (data.images * 15.9).astype(np.uint8)[..., None], data.target.astype(np.int64)


class Told:
    """A network that loses what a function of the rate says, and notes what it is given."""

    engine = "told"

    def __init__(self, loss: Any) -> None:
        self.loss = loss
        self.batches: list[NDArray[np.intp]] = []
        self.rates: list[float] = []
        self.seen: list[int] = []
        self.calls: list[str] = []

    def start(self, settings: TrainSettings, n_steps: int = 0) -> None:
        self.calls.append("start")

    def train_step(
        self, images: Images, labels: Codes, learning_rate: float, weights: Array | None = None
    ) -> tuple[Array, NDArray[np.bool_]]:
        self.batches.append(labels.copy())
        self.seen.append(int(images[0, 0, 0, 0]))
        self.rates.append(learning_rate)
        return np.full(len(labels), self.loss(learning_rate), np.float64), labels == 0  # type: ignore[return-value]

    def logits(self, images: Images) -> Array:
        raise NotImplementedError

    def state(self) -> dict[str, NDArray[Any]]:
        self.calls.append("state")
        return {"steps": np.array(len(self.rates))}

    def load_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        self.calls.append(f"load {int(state['steps'])}")

    def weights(self) -> Weights:
        raise NotImplementedError

    def load_weights(self, weights: Weights) -> None:
        raise NotImplementedError


def numbered(n_images: int) -> Data:
    """Images whose labels are their numbers."""
    return np.zeros((n_images, 1, 1, 1), np.uint8), np.arange(n_images)


def valley(rate: float) -> float:
    """Falls fastest at 1e-3, is least between 1e-2 and 1e-1, explodes after 0.3."""
    fall = 1 / (1 + math.exp(3 * (math.log10(rate) + 3)))
    return 0.3 + 2 * fall + (rate / 0.1) ** 3


# what it suggests


def test_suggestion_lies_where_the_loss_falls() -> None:
    found = find_rate(Told(valley), *numbered(500), TrainSettings())
    # a running mean is late: by less than a decade
    assert 1e-3 < found.suggestion < 2e-2 and not found.remark
    least = found.rates[int(np.argmin(found.losses))]
    assert found.suggestion <= least / 3
    assert (
        max(found.losses[:-1]) <= 4 * min(found.losses) < found.losses[-1]
        and len(found.rates) == len(found.losses) < 100
    )


@pytest.mark.parametrize("n_steps", [50, 200])
def test_suggestion_hardly_depends_on_the_number_of_steps(n_steps: int) -> None:
    rates = [
        find_rate(Told(valley), *numbered(500), TrainSettings(), n_steps=n).suggestion for n in (100, n_steps)
    ]
    assert 0.6 < rates[0] / rates[1] < 1.6


def test_suggestion_keeps_away_from_the_edge() -> None:
    def cliff(rate: float) -> float:
        """Falls ever faster, up to the rate at which it explodes."""
        return 50.0 if rate > 0.1 else 2.3 - 0.4 * max(0.0, math.log10(rate) + 3) ** 2

    found = find_rate(Told(cliff), *numbered(500), TrainSettings())
    least = found.rates[int(np.argmin(found.losses))]
    assert least / 6 < found.suggestion <= least / 3


def test_recovery_from_a_blow_up_is_not_taken_for_the_fall() -> None:
    def twice(rate: float) -> float:
        """As a network with batch norm: it falls, blows up at 0.03, and falls deeper and faster after."""
        fall = 1 / (1 + math.exp(3 * (math.log10(rate) + 3)))
        blow_up = math.exp(-((5 * (math.log10(rate) + 1.5)) ** 2))
        return 1.3 + 2 * fall + 3 * blow_up - 0.4 * (rate > 0.03)

    found = find_rate(Told(twice), *numbered(500), TrainSettings())
    assert found.rates[-1] == 1.0 and 1e-3 < found.suggestion < 1e-2


def test_noise_on_a_long_floor_does_not_decide() -> None:
    def floor(rate: float) -> float:
        return 0.8 + 2.2 / (1 + math.exp(3 * (math.log10(rate) + 3)))

    for seed in range(20):
        rng = np.random.default_rng(seed)
        told = Told(lambda rate, rng=rng: floor(rate) * rng.lognormal(0, 0.1))
        assert 1e-3 < find_rate(told, *numbered(500), TrainSettings()).suggestion < 1.5e-2, seed


@pytest.mark.slow
def test_mixup_is_left_out_of_the_test(digits: Data) -> None:
    pytest.importorskip("torch")
    images, labels = digits[0][:300], digits[1][:300]
    spec = architecture("mlp", InputSpec(8, 8, 1), 10)
    settings = TrainSettings(batch_size=32, seed=3)
    plain, mixed = (
        find_rate(make_network(spec, "torch", 3), images, labels, replace(settings, **more))
        for more in ({}, {"mixup": 0.2, "ema": 0.99})
    )
    assert plain == mixed


def test_peak_of_a_schedule_is_twice_as_high() -> None:
    rates = {
        schedule: find_rate(Told(valley), *numbered(500), TrainSettings(schedule=schedule)).suggestion
        for schedule in ("constant", "one-cycle", "cosine")
    }
    assert rates["one-cycle"] == rates["cosine"] == pytest.approx(2 * rates["constant"])


def test_noise_does_not_lead_it_astray() -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        told = Told(lambda rate, rng=rng: valley(rate) * rng.lognormal(0, 0.12))
        assert 5e-4 < find_rate(told, *numbered(500), TrainSettings()).suggestion < 3e-2, seed


@pytest.mark.parametrize("engine", ["scratch", pytest.param("torch", marks=pytest.mark.slow)])
def test_suggested_rate_trains(engine: str, digits: Data) -> None:
    if engine == "torch":
        pytest.importorskip("torch")
    images, labels = digits
    spec = architecture("mlp", InputSpec(8, 8, 1), 10)
    settings = TrainSettings(batch_size=32, epochs=4)
    found = find_rate(make_network(spec, engine), images[:1200], labels[:1200], settings)
    network = make_network(spec, engine)
    fit(network, images[:1200], labels[:1200], replace(settings, learning_rate=found.suggestion))
    usual = make_network(spec, engine)
    fit(usual, images[:1200], labels[:1200], settings)
    here, there = (measure(one, images[1200:], labels[1200:])[1] for one in (network, usual))
    assert here > 0.85 and here > there - 0.02


# how it goes


def test_rate_rises_by_the_same_factor() -> None:
    told = Told(lambda rate: 1.0 - rate)
    with pytest.raises(SettingError):
        find_rate(told, *numbered(500), TrainSettings(), n_steps=21, low=1e-4, high=1e-2)
    assert told.rates[0] == pytest.approx(1e-4) and told.rates[-1] == pytest.approx(1e-2)
    assert np.diff(np.log10(told.rates)) == pytest.approx(0.1)


def test_few_images_are_gone_through_again_in_another_order() -> None:
    told = Told(valley)
    find_rate(told, *numbered(10), TrainSettings(batch_size=4))
    assert {len(batch) for batch in told.batches} == {4}, "no small batch at the end of a round"
    rounds = [tuple(np.concatenate(told.batches[i : i + 2])) for i in range(0, 20, 2)]
    assert all(len(set(one)) == 8 for one in rounds) and len(set(rounds)) == 10


def test_batch_may_be_larger_than_all_there_is() -> None:
    told = Told(valley)
    find_rate(told, *numbered(3), TrainSettings(batch_size=128))
    assert {tuple(sorted(batch)) for batch in told.batches} == {(0, 1, 2)}


def test_seed_draws_the_order() -> None:
    orders = []
    for seed in (0, 0, 1):
        told = Told(valley)
        find_rate(told, *numbered(500), TrainSettings(seed=seed))
        orders.append(told.batches[0].tolist())
    assert orders[0] == orders[1] != orders[2]


def test_views_are_learnt_from() -> None:
    told = Told(valley)
    asked: list[tuple[int, int]] = []

    def copies(images: Images, indices: NDArray[np.intp], number: int) -> Images:
        asked.append((len(indices), number))
        return np.full_like(images, number)

    find_rate(told, *numbered(10), TrainSettings(batch_size=5), augment=copies)
    assert told.seen[:5] == [1, 1, 2, 2, 3] and asked[2] == (5, 2)


# when it gives up


def test_loss_that_never_falls_is_an_error() -> None:
    for loss in (lambda rate: 2.3, lambda rate: 2.3 + rate, lambda rate: 2.3 - 0.04 * (rate > 0.01)):
        with pytest.raises(SettingError, match=r"loss does not fall between .* of 1e-06 and \S+ \(2\.\d+ to"):
            find_rate(Told(loss), *numbered(500), TrainSettings())


def test_a_fall_to_the_loss_of_guessing_is_none() -> None:
    """Weights start somewhere above it, and come down to it whatever the labels are."""
    images, labels = np.zeros((500, 1, 1, 1), np.uint8), np.arange(500) % 10

    def settled(rate: float) -> float:
        return 2.31 + 0.4 / (1 + math.exp(3 * (math.log10(rate) + 3)))

    with pytest.raises(FlatLossError, match=r"2\.7\S* to 2\.3\S* at best, 2\.3\S* for guessing\)"):
        find_rate(Told(settled), images, labels, TrainSettings())
    assert find_rate(Told(lambda rate: settled(rate) - 0.6), images, labels, TrainSettings()).suggestion > 0
    uneven = np.arange(500) % 10 // 9  # one in ten: guessing has 0.33 nats
    with pytest.raises(FlatLossError, match=r"0\.325 for guessing"):
        find_rate(Told(lambda rate: settled(rate) - 1.9), images, uneven, TrainSettings())


@pytest.mark.parametrize("network", ["mlp", "mlp-wide"])
def test_labels_that_belong_to_nothing_give_no_rate(network: str, digits: Data) -> None:
    for seed in range(4):
        labels = np.random.default_rng(seed).permutation(digits[1])
        spec = architecture(network, InputSpec(8, 8, 1), 10)
        with pytest.raises(FlatLossError):
            find_rate(make_network(spec, "scratch", seed), digits[0], labels, TrainSettings(seed=seed))


def test_noise_is_no_fall() -> None:
    refused = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        try:
            find_rate(Told(lambda rate, rng=rng: rng.normal(2.3, 0.3)), *numbered(500), TrainSettings())
        except SettingError:
            refused += 1
    assert refused >= 19


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        (lambda rate: math.nan, r"loss is not a number at a learning rate of 1e-06, after 1 steps"),
        (lambda rate: math.inf, r"loss is not a number at a learning rate of 1e-06, after 1 steps"),
        (lambda rate: (rate / 1e-6) ** 4, r"loss explodes at a learning rate of \S+, after \d+ steps"),
    ],
)
def test_loss_that_explodes_at_once_is_an_error(loss: Any, said: str) -> None:
    with pytest.raises(SettingError, match=said):
        find_rate(Told(loss), *numbered(500), TrainSettings())


def test_loss_that_ends_as_no_number_is_no_fault() -> None:
    found = find_rate(
        Told(lambda rate: valley(rate) if rate < 0.05 else math.nan), *numbered(500), TrainSettings()
    )
    assert all(math.isfinite(loss) for loss in found.losses) and found.rates[-1] < 0.05


def test_range_cut_off_is_remarked_on() -> None:
    high = find_rate(Told(valley), *numbered(500), TrainSettings(), high=1e-2)
    assert high.remark.startswith("the loss still falls at the highest rate tried, 0.01")
    low = find_rate(Told(lambda rate: 3 / (1 + rate / 1e-6)), *numbered(500), TrainSettings())
    assert low.remark.startswith("the loss already falls at the lowest rate tried, 1e-06")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"n_steps": 19}, "n_steps is 19, expected at least 20"),
        ({"low": 0.0}, "low is 0.0, high 1.0, expected two rates above 0"),
        ({"low": 1.0}, "expected two rates above 0, the lower one first"),
        ({"high": math.inf}, "expected two rates"),
        ({"low": math.nan}, "expected two rates"),
        ({"n_steps": 1, "low": -1.0}, "n_steps is 1.*; low is -1.0"),
    ],
)
def test_options_out_of_range(options: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingError, match=said):
        find_rate(Told(valley), *numbered(5), TrainSettings(), **options)


def test_nothing_to_learn_from() -> None:
    with pytest.raises(ShapeError, match="images has length 0, labels 0"):
        find_rate(Told(valley), *numbered(0), TrainSettings())
    with pytest.raises(ShapeError, match="images has length 3, labels 2"):
        find_rate(Told(valley), numbered(3)[0], numbered(2)[1], TrainSettings())


# that it leaves no trace


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize(
    "network",
    ["mlp", pytest.param("mlp-wide", marks=pytest.mark.slow)],  # the wide one draws masks of dropout
)
@pytest.mark.parametrize("engine", ["scratch", "torch"])
def test_training_gives_the_same_bits_after_it(
    engine: str, network: str, optimizer: str, digits: Data
) -> None:
    if engine == "torch":
        pytest.importorskip("torch")
    images, labels = digits[0][:300], digits[1][:300]
    spec = architecture(network, InputSpec(8, 8, 1), 10)
    settings = TrainSettings(batch_size=32, epochs=2, optimizer=optimizer, seed=3)
    plain, tested = make_network(spec, engine, 3), make_network(spec, engine, 3)
    before = tested.weights()
    find_rate(tested, images, labels, settings, high=100.0)  # far into what overflows
    assert all(np.array_equal(value, before[name]) for name, value in tested.weights().items())
    told = [fit(one, images, labels, settings) for one in (plain, tested)]
    wanted = plain.weights()
    assert all(np.array_equal(value, wanted[name]) for name, value in tested.weights().items())
    assert [replace(one, seconds=0.0, val_loss=0.0, val_accuracy=0.0) for one in told[0]] == [
        replace(one, seconds=0.0, val_loss=0.0, val_accuracy=0.0) for one in told[1]
    ]


@pytest.mark.parametrize(
    "more",
    [
        pytest.param({"mixup": 0.4}, marks=pytest.mark.slow),
        pytest.param({"ema": 0.9}, marks=pytest.mark.slow),
        {"gradual": 0.5},
        pytest.param({"layer_decay": 0.5, "weight_decay": 0.01}, marks=pytest.mark.slow),
        {"clip": 1.0},
    ],
    ids=str,
)
def test_torch_alone_leaves_no_trace_either(more: dict[str, Any], digits: Data) -> None:
    pytest.importorskip("torch")
    images, labels = digits[0][:300], digits[1][:300]
    spec = architecture("mlp-wide", InputSpec(8, 8, 1), 10)
    settings = TrainSettings(batch_size=32, epochs=2, seed=3, **more)
    plain, tested = make_network(spec, "torch", 3), make_network(spec, "torch", 3)
    find_rate(tested, images, labels, settings)
    for one in (plain, tested):
        fit(one, images, labels, settings)
    wanted = plain.weights()
    assert all(np.array_equal(value, wanted[name]) for name, value in tested.weights().items())


def test_what_is_frozen_stays_frozen(digits: Data) -> None:
    spec = architecture("mlp", InputSpec(8, 8, 1), 10)
    network = make_network(spec, "scratch")
    network.freeze("hidden1")
    before = network.weights()
    find_rate(network, *digits, TrainSettings(batch_size=32))
    fit(network, *digits, TrainSettings(batch_size=32, epochs=1))
    after = network.weights()
    assert np.array_equal(before["dense1.weight"], after["dense1.weight"])
    assert not np.array_equal(before["output.weight"], after["output.weight"])


def test_interrupted_test_leaves_no_trace() -> None:
    def stop(rate: float) -> float:
        if rate > 1e-4:
            raise KeyboardInterrupt
        return 2.3

    told = Told(stop)
    with pytest.raises(KeyboardInterrupt):
        find_rate(told, *numbered(500), TrainSettings())
    assert told.calls == ["start", "state", "start", "load 0"]


# its picture


def test_picture_marks_the_suggestion() -> None:
    found = find_rate(Told(valley), *numbered(500), TrainSettings())
    drawing = diagrams.rate_test(found.rates, found.losses, found.suggestion)
    assert drawing.startswith('<svg class="rates" role="img" aria-label="Loss by learning rate"')
    assert f"suggested: {float(f'{found.suggestion:.2g}'):.4g}<" in drawing
    assert "#" not in drawing.replace("#0063a8", "").replace("#ffffff", "").replace("#5f5f66", ""), (
        "colours are the page's"
    )


def test_ring_of_the_picture_stands_on_the_line() -> None:
    drawing = diagrams.rate_test((1e-4, 1e-3, 1e-2), (4.0, 2.0, 0.0), 1e-3)
    assert 'M46.0 34.0L245.0 128.0L444.0 222.0"' in drawing and 'cx="245.0" cy="128.0"' in drawing
    between = diagrams.rate_test((1e-4, 1e-2), (4.0, 0.0), 1e-3)
    assert 'cx="245.0" cy="128.0"' in between
    for end, rate in ((46.0, 1e-4), (444.0, 1e-2)):
        assert f'cx="{end}"' in diagrams.rate_test((1e-4, 1e-2), (4.0, 0.0), rate)


@pytest.mark.parametrize(
    ("curve", "fault"),
    [
        (RateCurve((1e-3, 1e-2), (1.0,), 1e-3), ShapeError),
        (RateCurve((1e-3,), (1.0,), 1e-3), SettingError),
        (RateCurve((1e-3, 1e-2), (1.0, 2.0), 1e-1), SettingError),
        (RateCurve((1e-3, 1e-2), (1.0, 2.0), math.nan), SettingError),
        (RateCurve((0.0, 1e-2), (1.0, 2.0), 1e-2), SettingError),
    ],
)
def test_picture_of_nonsense_is_refused(curve: RateCurve, fault: type[Exception]) -> None:
    with pytest.raises(fault):
        diagrams.rate_test(curve.rates, curve.losses, curve.suggestion)
