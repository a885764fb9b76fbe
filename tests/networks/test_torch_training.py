"""Training by PyTorch: what each setting does, what a state brings back, what freezes, where it runs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from headstart.errors import SettingError
from headstart.graph import run as runtime
from headstart.graph.layers import network_graph
from headstart.networks.engines.registry import make_network
from headstart.networks.specs import architecture
from headstart.networks.training import fit
from headstart.records import Codes, Images, InputSpec, LayerSpec, NetworkSpec, TrainSettings

torch = pytest.importorskip("torch", reason="needs torch")

from headstart.networks.engines.torch_device import chosen_device  # noqa: E402
from headstart.networks.engines.torch_engine import TorchNetwork  # noqa: E402 - it imports torch
from headstart.networks.engines.torch_optimizers import FlatOptimizer, Segment  # noqa: E402 - it imports torch
from headstart.networks.engines.torch_training import TorchTraining  # noqa: E402

GREY = InputSpec(12, 12, 1, (0.2,), (0.4,))
SPEC = NetworkSpec(
    "normed",
    GREY,
    (
        LayerSpec("conv2d", "conv1", {"channels": 6, "kernel": 3}),
        LayerSpec("maxpool2d", "pool1", {"size": 2}),
        LayerSpec("batchnorm2d", "norm1"),
        LayerSpec("relu", "block1"),
        LayerSpec("conv2d", "conv2", {"channels": 8, "kernel": 3, "padding": "same"}),
        LayerSpec("batchnorm2d", "norm2"),
        LayerSpec("relu", "block2"),
        LayerSpec("flatten", "flatten"),
        LayerSpec("dropout", "dropout", {"rate": 0.3}),
        LayerSpec("dense", "output", {"units": 4}),
    ),
)
PLAIN = TrainSettings(epochs=3, batch_size=16, learning_rate=1e-2, precision="fp32")


@pytest.fixture(scope="module")
def data() -> tuple[Images, Codes]:
    """Four classes: where the bright patch is."""
    rng = np.random.default_rng(0)
    labels = np.arange(96) % 4
    images = rng.integers(0, 60, (96, 12, 12, 1))
    for image, label in zip(images, labels, strict=True):
        row, column = divmod(int(label), 2)
        image[2 + 5 * row : 6 + 5 * row, 2 + 5 * column : 6 + 5 * column] += 150
    return images.astype(np.uint8), labels.astype(np.int64)


def trained(data: tuple[Images, Codes], **changes: Any) -> TorchNetwork:
    network = TorchNetwork(SPEC, seed=1)
    fit(network, *data, replace(PLAIN, **changes))
    return network


def same(one: TorchNetwork, other: TorchNetwork) -> bool:
    mine, theirs = one.weights(), other.weights()
    return all(np.array_equal(mine[name], theirs[name]) for name in mine)


def test_batch_norm_is_in_the_graph(data: tuple[Images, Codes]) -> None:
    network = trained(data)
    graph = network_graph(SPEC, network.weights())
    answers = runtime.compile_graph(graph, precision="fp32").run(runtime.split_batches(data[0], 32), 96)
    assert np.abs(answers - network.logits(data[0])).max() < 1e-4
    assert (answers.argmax(1) == data[1]).mean() > 0.95
    statistics = network.weights()["norm1.mean"]
    assert np.abs(statistics).max() > 0.01


@pytest.mark.parametrize(
    "changes",
    [
        {"mixup": 0.4},
        {"ema": 0.9},
        {"clip": 0.01},
        {"layer_decay": 0.5},
        {"gradual": 0.5},
        {"batch_norm": "frozen"},
        {"weight_decay": 0.1, "optimizer": "adamw"},
        {"optimizer": "muon"},
        {"schedule": "cosine"},
    ],
)
def test_every_setting_changes_the_result_and_the_same_ones_do_not(
    changes: dict[str, Any], data: tuple[Images, Codes]
) -> None:
    assert same(trained(data, **changes), trained(data, **changes))
    assert not same(trained(data, **changes), trained(data))


def test_accumulating_gives_the_same_step(data: tuple[Images, Codes]) -> None:
    """But for batch-norm, whose statistics are of the parts; and for rounding."""
    plain = tuple(one for one in SPEC.layers if one.kind not in ("batchnorm2d", "dropout"))
    spec = replace(SPEC, layers=plain)
    whole, parts = TorchNetwork(spec, seed=1), TorchNetwork(spec, seed=1)
    settings = replace(PLAIN, epochs=1, optimizer="sgd", learning_rate=0.05)
    fit(whole, *data, settings)
    fit(parts, *data, replace(settings, accumulate=3))
    for name, value in whole.weights().items():
        assert np.abs(value - parts.weights()[name]).max() < 1e-5


def test_muon_moves_as_torchs_does() -> None:
    """torch.optim.Muon, one matrix, five steps."""
    rng = np.random.default_rng(0)
    for shape in ((6, 20), (20, 6)):
        values = torch.tensor(rng.normal(size=shape), dtype=torch.float32)
        theirs = torch.nn.Parameter(values.clone())
        optimizer = torch.optim.Muon(
            [theirs], lr=0.01, weight_decay=0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw"
        )
        flat, grads = values.reshape(-1).clone(), torch.zeros(values.numel())
        ours = FlatOptimizer(
            TrainSettings(optimizer="muon", weight_decay=0.1),
            flat,
            grads,
            [Segment(0, flat.numel(), 1.0, True, 0, rows=shape[0])],
        )
        for _ in range(5):
            gradient = torch.tensor(rng.normal(size=shape), dtype=torch.float32)
            theirs.grad = gradient
            grads.copy_(gradient.reshape(-1))
            optimizer.step()
            ours.step(0.01, 1)
        moved = (theirs.detach() - values).abs().max()
        gap = (theirs.detach().reshape(-1) - flat).abs().max()
        assert moved > 0.01
        assert gap < 0.05 * moved  # theirs is in bfloat16


def test_muon_takes_the_matrices_inside(data: tuple[Images, Codes]) -> None:
    network = TorchNetwork(SPEC, seed=1)
    network.start(replace(PLAIN, optimizer="muon", weight_decay=0.01))
    assert network._optimizer is not None
    matrices = sum(one.rows > 0 for one in network._optimizer.segments)
    assert matrices == sum(one.kind in ("conv2d", "dense") for one in SPEC.layers) - 2


def test_the_running_mean_is_the_result(data: tuple[Images, Codes]) -> None:
    """With a constant gradient sign the mean lags behind the last weights; statistics are averaged too."""
    network = TorchNetwork(SPEC, seed=1)
    settings = replace(PLAIN, ema=0.9)
    network.start(settings)
    seen = []
    for _ in range(20):
        network.train_step(data[0][:16], data[1][:16], 1e-3)
        seen.append(network.state()["values"].copy())
    mean, keep_at = seen[0] * 0, TorchNetwork(SPEC, seed=1)
    keep_at.start(PLAIN)
    mean = keep_at.state()["values"].copy()
    for step, now in enumerate(seen, start=1):
        keep = min(0.9, (1 + step) / (10 + step))
        mean = keep * mean + (1 - keep) * now
    assert np.abs(network.state()["average"] - mean).max() < 1e-5
    raw = network.state()["values"].copy()
    answers = network.logits(data[0])
    assert np.array_equal(network.state()["values"], raw)
    again = TorchNetwork(SPEC, seed=2)
    again.load_weights(network.weights())
    assert np.array_equal(again.logits(data[0]), answers)


def test_weight_decay_spares_biases_and_norms(data: tuple[Images, Codes]) -> None:
    network = TorchNetwork(SPEC, seed=1)
    network.start(replace(PLAIN, optimizer="adamw", weight_decay=0.5))
    before = network.weights()
    network._grads.zero_()
    assert network._optimizer is not None
    network._optimizer.step(0.1, len(network.parts))
    for name, value in network.weights().items():
        if name.endswith(("bias", "mean", "variance")) or name.startswith("norm"):
            assert np.array_equal(value, before[name]), name
        else:
            assert np.allclose(value, before[name] * 0.95, atol=1e-6), name


def test_lower_parts_learn_at_smaller_rates(data: tuple[Images, Codes]) -> None:
    network = TorchNetwork(SPEC, seed=1)
    network.start(replace(PLAIN, layer_decay=0.1))
    before = network.weights()
    network.train_step(data[0][:16], data[1][:16], 1e-2)  # Adam's first step is the rate in every weight
    after = network.weights()
    moved = {name: float(np.abs(after[name] - before[name]).max()) for name in before}
    for name, rate in {"output": 1e-2, "conv2": 1e-3, "norm2": 1e-3, "conv1": 1e-4}.items():
        assert moved[f"{name}.weight"] == pytest.approx(rate, rel=0.02)


def test_gradual_opens_from_the_top(data: tuple[Images, Codes]) -> None:
    network = TorchNetwork(SPEC, seed=1)
    network.start(replace(PLAIN, gradual=0.5), n_steps=20)
    opened = []
    before = network.weights()
    for _ in range(20):
        network.train_step(data[0][:16], data[1][:16], 1e-2)
        after = network.weights()
        moved = {name.partition(".")[0] for name in after if not np.array_equal(after[name], before[name])}
        opened.append(sum(one in moved for one in ("conv1", "conv2", "output")))
        before = after
    assert opened == [1] * 5 + [2] * 5 + [3] * 10


def test_a_norm_without_weights_is_frozen_with_the_layer_above_it(data: tuple[Images, Codes]) -> None:
    torch.manual_seed(0)
    norms = [torch.nn.BatchNorm2d(5, affine=False) for _ in range(2)]
    convs = [torch.nn.Conv2d(n, 5, 3) for n in (1, 5, 5)]
    module = torch.nn.Sequential(
        convs[0], norms[0], convs[1], norms[1], convs[2], torch.nn.Flatten(), torch.nn.Linear(5 * 36, 4)
    )
    parts = [(f"part{n}", [f"{n}.weight", f"{n}.bias"]) for n in (0, 2, 4, 6)]
    network = TorchTraining(module, GREY, parts)
    network.freeze_parts(2)
    sums = network.checksum()
    fit(network, *data, PLAIN)
    assert network.checksum() == sums
    assert not norms[0].running_mean.any(), "below the last frozen layer"
    assert norms[1].running_mean.any(), "below the first open one"
    norms[0].running_mean += 1
    assert network.checksum() != sums


def test_a_frozen_part_keeps_its_statistics(data: tuple[Images, Codes]) -> None:
    network = trained(data)
    network.freeze("block1")
    sums, before = network.checksum(), network.weights()
    fit(network, *data, PLAIN)
    after = network.weights()
    for name in before:
        frozen = name.startswith(("conv1", "norm1"))
        assert np.array_equal(after[name], before[name]) == frozen, name
    assert network.checksum() == sums
    network.load_weights({**after, "norm1.mean": after["norm1.mean"] + 1e-4})
    assert network.checksum() != sums


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"mixup": 0.4, "ema": 0.9, "clip": 0.5, "gradual": 0.6, "layer_decay": 0.7, "optimizer": "adamw"},
        {"optimizer": "sgd", "weight_decay": 0.01},
    ],
)
def test_a_state_brings_all_of_it_back(changes: dict[str, Any], data: tuple[Images, Codes]) -> None:
    settings = replace(PLAIN, **changes)
    whole, first, second = (TorchNetwork(SPEC, seed=1) for _ in range(3))
    batches = [slice(at, at + 16) for at in range(0, 96, 16)] * 2
    for network in (whole, first, second):
        network.start(settings, len(batches))
    for part in batches:
        whole.train_step(data[0][part], data[1][part], 1e-2)
    for part in batches[:5]:
        first.train_step(data[0][part], data[1][part], 1e-2)
    second.load_state(first.state())
    for part in batches[5:]:
        second.train_step(data[0][part], data[1][part], 1e-2)
    assert same(whole, second)


def test_devices() -> None:
    assert chosen_device("auto").type in ("cpu", "cuda", "mps")
    with pytest.raises(SettingError, match=r"device is 'gpu', expected one of auto, cpu, cuda, mps"):
        chosen_device("gpu")
    if not torch.cuda.is_available():
        with pytest.raises(SettingError, match="device is 'cuda', which torch does not find"):
            make_network(architecture("mlp", GREY, 4), "torch", device="cuda")
    with pytest.raises(SettingError, match="device is 'cuda', which the engine scratch cannot use"):
        make_network(architecture("mlp", GREY, 4), "scratch", device="cuda")


def test_the_numpy_engine_says_what_it_lacks() -> None:
    network = make_network(architecture("mlp", GREY, 4), "scratch")
    with pytest.raises(SettingError, match=r"mixup is 0\.2, which the engine scratch does not support"):
        network.start(TrainSettings(mixup=0.2))
    with pytest.raises(SettingError, match="batchnorm2d requires the engine torch"):
        make_network(architecture("best", InputSpec(28, 28, 1), 10), "scratch")
