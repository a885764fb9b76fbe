"""One contract, two engines: what a TrainableNetwork promises, and that NumPy and PyTorch keep it alike."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from headstart.data.dataset import Dataset
from headstart.data.stores import ArrayImages
from headstart.errors import HeadstartError, SettingError, ShapeError
from headstart.graph import run as runtime
from headstart.graph.build import with_outputs
from headstart.graph.layers import network_graph
from headstart.networks.contract import TrainableNetwork
from headstart.networks.engines.numpy_engine import initial_weights
from headstart.networks.engines.registry import ENGINES, make_network
from headstart.networks.specs import ARCHITECTURES, architecture, layer_shapes
from headstart.records import Codes, Images, InputSpec, LayerSpec, NetworkSpec, TrainSettings, Weights

GREY = InputSpec(8, 8, 1)
SETTINGS = TrainSettings(precision="fp32")
RATE = 1e-3

# every layer kind with every option, on colour images of odd sizes and scaled pixels
EVERY = NetworkSpec(
    "every",
    InputSpec(13, 11, 3, (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)),
    (
        LayerSpec("conv2d", "conv1", {"channels": 5, "kernel": 3, "padding": "same"}),
        LayerSpec("maxpool2d", "pool1", {"size": 2}),
        LayerSpec("relu", "block1"),
        LayerSpec("conv2d", "conv2", {"channels": 4, "kernel": 3}),
        LayerSpec("relu", "block2"),
        LayerSpec("flatten", "flatten"),
        LayerSpec("dense", "dense1", {"units": 9}),
        LayerSpec("relu", "hidden1"),
        LayerSpec("dropout", "dropout1", {"rate": 0.5}),
        LayerSpec("dense", "output", {"units": 3}),
    ),
)
# small enough for a test, with everything but dropout: its masks come from each engine's own generator
CONVS = NetworkSpec("convs", replace(GREY), (*EVERY.layers[:8], LayerSpec("dense", "output", {"units": 10})))
SPECS = {"mlp": architecture("mlp", GREY, 10), "convs": CONVS}


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    if request.param == "torch":
        pytest.importorskip("torch")
    return str(request.param)


@pytest.fixture(params=SPECS)
def spec(request: pytest.FixtureRequest) -> NetworkSpec:
    return SPECS[request.param]


@pytest.fixture(scope="session")
def pixels(digits: Dataset) -> tuple[Images, Codes]:
    assert isinstance(digits.images, ArrayImages)
    return digits.images.pixels.copy(), digits.codes()


def trained(
    network: TrainableNetwork,
    data: tuple[Images, Codes],
    n_steps: int = 20,
    settings: TrainSettings = SETTINGS,
    rate: float = RATE,
) -> TrainableNetwork:
    network.start(settings)
    images, codes = data
    for step in range(n_steps):
        part = np.arange(step * 32, step * 32 + 32) % len(codes)
        network.train_step(images[part], codes[part], rate)
    return network


def same(one: Weights, other: Weights) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def random_images(spec: NetworkSpec, n_images: int = 7) -> Images:
    shape = (n_images, *spec.input.shape)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def relative(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one - other).max() / np.abs(other).max())


def test_it_is_a_network(engine: str, spec: NetworkSpec) -> None:
    network = make_network(spec, engine)
    assert network.engine == engine and network.spec == spec
    assert all(hasattr(network, name) for name in vars(TrainableNetwork) if not name.startswith("_"))


@pytest.mark.parametrize("name", [*ARCHITECTURES, "every"])
def test_a_seed_draws_the_same_weights_in_every_engine(engine: str, name: str) -> None:
    spec = EVERY if name == "every" else architecture(name, GREY, 10)
    if engine == "scratch" and name == "best":
        pytest.skip("the NumPy engine has no batch norm")
    drawn = make_network(spec, engine, 3).weights()
    assert same(drawn, initial_weights(spec, 3)) and not same(drawn, initial_weights(spec, 4))
    shapes = {**layer_shapes(spec)}
    for layer in spec.layers:
        if layer.kind in ("conv2d", "dense"):
            weight = drawn[f"{layer.name}.weight"]
            assert weight.shape[0] == shapes[layer.name][0] and weight.dtype == np.float32
            assert drawn[f"{layer.name}.bias"].shape == weight.shape[:1]


def test_weights_come_as_a_copy_and_go_in_as_one(engine: str, spec: NetworkSpec) -> None:
    network, other = make_network(spec, engine, 0), make_network(spec, engine, 1)
    weights = network.weights()
    other.load_weights(weights)
    assert same(other.weights(), weights)
    images = random_images(spec)
    before = network.logits(images)
    assert np.array_equal(before, other.logits(images))
    for value in weights.values():
        value[...] += 1.0
    assert np.array_equal(network.logits(images), before) and np.array_equal(other.logits(images), before)


def test_read_only_weights_and_images_are_taken(engine: str, spec: NetworkSpec) -> None:
    """Arrays from a file or a dataset may not be written to; nothing here needs to."""
    network, weights = make_network(spec, engine), initial_weights(spec, 5)
    images, codes = random_images(spec), np.arange(7) % 10
    for value in (*weights.values(), images, codes):
        value.flags.writeable = False
    network.load_weights(weights)
    network.start(SETTINGS)
    network.logits(images)
    network.train_step(images, codes, RATE, np.ones(7, np.float32))


@pytest.mark.parametrize("fault", ["missing", "unknown", "shape", "transposed", "rank"])
def test_wrong_weights_are_refused_and_change_nothing(engine: str, spec: NetworkSpec, fault: str) -> None:
    network = make_network(spec, engine)
    before, wrong = network.weights(), initial_weights(spec, 9)
    value = wrong.pop("dense1.weight")
    wrong |= {
        "missing": {},
        "unknown": {"dense1.weight": value, "dense9.weight": value},
        "shape": {"dense1.weight": value[:-1]},
        "transposed": {"dense1.weight": value.T},
        "rank": {"dense1.weight": value[None]},
    }[fault]
    with pytest.raises(ShapeError) as caught:
        network.load_weights(wrong)
    assert "dense" in str(caught.value) and "\n" not in str(caught.value)
    assert same(network.weights(), before)


def test_logits_have_a_row_per_image(engine: str, spec: NetworkSpec) -> None:
    network = make_network(spec, engine)
    images = random_images(spec, 1_030)  # more than an evaluation batch of either
    logits = network.logits(images)
    assert logits.shape == (1_030, 10) and logits.dtype == np.float32
    np.testing.assert_allclose(network.logits(images[-1:]), logits[-1:], atol=1e-5)


def test_logits_are_without_dropout(engine: str) -> None:
    network, images = make_network(EVERY, engine), random_images(EVERY)
    assert np.array_equal(network.logits(images), network.logits(images))
    without = replace(EVERY, layers=tuple(layer for layer in EVERY.layers if layer.kind != "dropout"))
    plain = make_network(without, engine)
    plain.load_weights(network.weights())
    np.testing.assert_allclose(network.logits(images), plain.logits(images), atol=1e-6)


def test_training_has_dropout(engine: str) -> None:
    """At rate 0 a step changes nothing, so two steps differ by their masks only."""
    network, images = make_network(EVERY, engine), random_images(EVERY)
    network.start(replace(SETTINGS, optimizer="sgd"))
    one, other = (network.train_step(images, np.arange(7) % 3, 0.0)[0] for _ in range(2))
    assert not np.array_equal(one, other)


def test_a_step_gives_the_loss_before_it(
    engine: str, spec: NetworkSpec, pixels: tuple[Images, Codes]
) -> None:
    network = make_network(spec, engine)
    images, codes = pixels[0][:20], pixels[1][:20]
    logits = network.logits(images).astype(np.float64)
    for smoothing in (0.0, 0.1):  # what is reported is the plain loss, so that epochs compare
        network.load_weights(initial_weights(spec, 0))
        network.start(replace(SETTINGS, label_smoothing=smoothing))
        losses, right = network.train_step(images, codes, RATE)
        wanted = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(20), codes]
        np.testing.assert_allclose(losses, wanted, rtol=1e-4)
        assert losses.dtype == np.float32 and right.dtype == np.bool_
        assert right.tolist() == (logits.argmax(axis=1) == codes).tolist()


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_it_learns_real_digits(
    engine: str, spec: NetworkSpec, pixels: tuple[Images, Codes], optimizer: str
) -> None:
    network = make_network(spec, engine)
    rate = {"adam": 5e-3, "sgd": 0.1}[optimizer]
    trained(network, pixels, 120, replace(SETTINGS, optimizer=optimizer), rate)
    held = slice(1_500, None)
    accuracy = (network.logits(pixels[0][held]).argmax(axis=1) == pixels[1][held]).mean()
    assert accuracy > 0.45  # one in ten by chance


def test_what_is_frozen_stays_to_the_bit_and_the_rest_learns(
    engine: str, spec: NetworkSpec, pixels: tuple[Images, Codes]
) -> None:
    network = make_network(spec, engine)
    through = "hidden1"
    network.freeze(through)
    before = network.weights()
    after = trained(network, pixels, 5, replace(SETTINGS, weight_decay=0.1)).weights()
    frozen = spec.layer_names[: spec.layer_names.index(through) + 1]
    for name in before:
        assert np.array_equal(before[name], after[name]) == (name.rpartition(".")[0] in frozen), name


def test_an_unknown_layer_cannot_be_frozen(engine: str, spec: NetworkSpec) -> None:
    with pytest.raises(HeadstartError, match=r"layer 'hiden1' is unknown, .*hidden1"):
        make_network(spec, engine).freeze("hiden1")


def test_a_new_head_keeps_the_body(engine: str, spec: NetworkSpec, pixels: tuple[Images, Codes]) -> None:
    network = trained(make_network(spec, engine), pixels, 3)
    before = network.weights()
    network.replace_head(4, seed=8)
    after = network.weights()
    assert network.spec.n_classes == 4 and network.logits(pixels[0][:3]).shape == (3, 4)
    for name, value in before.items():
        if not name.startswith("output."):
            assert np.array_equal(after[name], value)
    fresh = initial_weights(network.spec, 8)
    assert np.array_equal(after["output.weight"], fresh["output.weight"])
    assert not after["output.bias"].any()
    trained(network, (pixels[0], pixels[1] % 4), 3)
    assert not np.array_equal(network.weights()["output.weight"], after["output.weight"])


def test_frozen_stays_frozen_under_a_new_head(
    engine: str, spec: NetworkSpec, pixels: tuple[Images, Codes]
) -> None:
    network = make_network(spec, engine)
    network.freeze("hidden1")
    network.replace_head(10, seed=8)
    before = network.weights()
    after = trained(network, pixels, 3).weights()
    learnt = {name.rpartition(".")[0] for name in before if not np.array_equal(before[name], after[name])}
    assert "output" in learnt and not learnt & {"conv1", "conv2", "dense1"}


@pytest.mark.parametrize("shape", [(8, 8), (8, 9, 1), (8, 8, 3), (1, 8, 8, 1)])
def test_images_of_another_shape_are_refused(engine: str, shape: tuple[int, ...]) -> None:
    network = make_network(SPECS["mlp"], engine)
    network.start(SETTINGS)
    images = np.zeros((2, *shape), np.uint8)
    for call in (network.logits, lambda x: network.train_step(x, np.zeros(2, np.int64), RATE)):
        with pytest.raises(ShapeError, match=r"images have shape \(2, .*, expected \(n, 8, 8, 1\)"):
            call(images)


def test_an_unknown_optimizer_is_refused(engine: str) -> None:
    names = "adam, adamw, sgd" if engine == "scratch" else "adam, adamw, muon, sgd"
    with pytest.raises(
        SettingError, match=f"optimizer is 'adamm', expected one of {names}; nearest are adam"
    ):
        make_network(SPECS["mlp"], engine).start(TrainSettings(optimizer="adamm"))


def test_an_unknown_engine_is_refused() -> None:
    with pytest.raises(
        SettingError, match="engine is 'torhc', expected one of scratch, torch; nearest are torch"
    ):
        make_network(SPECS["mlp"], "torhc")


@pytest.mark.parametrize("precision", ["fp32", "auto"])
@pytest.mark.parametrize("name", ["convs", "mlp-wide"])
def test_a_seed_decides_the_weights_to_the_bit(
    engine: str, name: str, precision: str, pixels: tuple[Images, Codes]
) -> None:
    spec = SPECS[name] if name in SPECS else architecture(name, GREY, 10)
    settings = replace(SETTINGS, precision=precision)
    one, other = (trained(make_network(spec, engine, 6), pixels, 6, settings).weights() for _ in range(2))
    assert same(one, other)
    assert not same(one, trained(make_network(spec, engine, 7), pixels, 6, settings).weights())


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"optimizer": "sgd"},
        {"optimizer": "sgd", "momentum": 0.0, "weight_decay": 1e-2},
        {"weight_decay": 1e-2},
        {"label_smoothing": 0.1},
    ],
)
def test_both_engines_walk_the_same_way(
    spec: NetworkSpec, pixels: tuple[Images, Codes], changes: dict[str, Any]
) -> None:
    pytest.importorskip("torch")
    settings = replace(SETTINGS, **changes)
    rate = 0.05 if settings.optimizer == "sgd" else RATE
    ours, theirs = (trained(make_network(spec, one, 2), pixels, 20, settings, rate) for one in ENGINES)
    for name, value in theirs.weights().items():
        assert relative(ours.weights()[name], value) <= 1e-3, name
    assert relative(ours.logits(pixels[0][:50]), theirs.logits(pixels[0][:50])) <= 1e-3


def test_both_engines_weigh_images_alike(spec: NetworkSpec, pixels: tuple[Images, Codes]) -> None:
    pytest.importorskip("torch")
    share = np.linspace(0, 3, 30).astype(np.float32)
    made = []
    for engine in ENGINES:
        network = make_network(spec, engine)
        network.start(replace(SETTINGS, optimizer="sgd"))
        network.train_step(pixels[0][:30], pixels[1][:30], 0.1, share)
        made.append(network.weights())
    start = initial_weights(spec, 0)
    for name in start:  # of the step itself, not of the weight it started from
        assert relative(made[0][name] - start[name], made[1][name] - start[name]) <= 1e-3, name


@pytest.mark.parametrize("runtime_name", runtime.RUNTIMES)
@pytest.mark.parametrize("name", ["every", "convs", "cnn", "mlp", "mlp-wide"])
def test_the_graph_gives_the_engine_s_logits(engine: str, name: str, runtime_name: str) -> None:
    spec = {"every": EVERY, **SPECS}.get(name) or architecture(name, GREY, 10)
    network, images = make_network(spec, engine, 1), random_images(spec)
    rng = np.random.default_rng(2)  # a bias is drawn as zero, which would hide a wrong one
    moved = {key: value + rng.normal(0, 0.05, value.shape) for key, value in network.weights().items()}
    network.load_weights({key: value.astype(np.float32) for key, value in moved.items()})
    graph = network_graph(network.spec, network.weights())
    ready = runtime.compile_graph(graph, runtime=runtime_name, precision="fp32", batch_size=4)
    assert relative(ready.run(runtime.split_batches(images, 4), len(images)), network.logits(images)) <= 1e-4


@pytest.mark.parametrize("spec", [EVERY, CONVS, *(architecture(name, GREY, 10) for name in ARCHITECTURES)])
def test_every_tap_has_the_shape_foretold(spec: NetworkSpec) -> None:
    graph, images = network_graph(spec, initial_weights(spec, 0)), random_images(spec, 2)
    assert tuple(layer_shapes(spec)) == spec.layer_names
    for layer, shape in layer_shapes(spec).items():
        ready = runtime.compile_graph(with_outputs(graph, [layer]), runtime="onnxruntime")
        assert ready.run([images], 2).shape == (2, *shape), layer
