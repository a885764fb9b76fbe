"""The whole network: against PyTorch over 100 steps, frozen, with a new head, saved and misused."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import DTypeLike, NDArray

from headstart.errors import SettingError, ShapeError, UnknownClassError
from headstart.scratch import (
    SGD,
    Adam,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    Layer,
    MaxPool2D,
    Network,
    Optimizer,
    ReLU,
    cross_entropy,
)

N_CLASSES = 3
SHAPES = {"mlp": (20,), "cnn": (11, 12, 2)}
N_STEPS = 100
BATCH_SIZE = 8


def layers_of(kind: str) -> list[Layer]:
    if kind == "mlp":
        return [Dense("fc1", 16), ReLU("relu1"), Dense("fc2", 8), ReLU("relu2"), Dense("head", N_CLASSES)]
    return [
        *(Conv2D("conv1", 4, padding="same"), MaxPool2D("pool1"), ReLU("relu1")),
        *(Conv2D("conv2", 5), ReLU("relu2"), Flatten("flatten")),
        *(Dense("fc1", 6), ReLU("relu3"), Dense("head", N_CLASSES)),
    ]


def network_of(kind: str, dtype: DTypeLike = np.float64, seed: int = 0) -> Network:
    return Network(layers_of(kind), SHAPES[kind], np.random.default_rng(seed), dtype)


def batches_of(kind: str, n_steps: int = N_STEPS) -> list[tuple[NDArray[np.float64], NDArray[np.int64]]]:
    rng = np.random.default_rng(7)
    return [
        (rng.standard_normal((BATCH_SIZE, *SHAPES[kind])), rng.integers(N_CLASSES, size=BATCH_SIZE))
        for _ in range(n_steps)
    ]


def sgd(network: Network) -> Optimizer:
    return SGD(network.trainable_values, network.trainable_grads, momentum=0.9)


def adam(network: Network) -> Optimizer:
    return Adam(network.trainable_values, network.trainable_grads)


def torch_twin(network: Network) -> Any:
    """The same layers and weights in PyTorch."""
    nn = pytest.importorskip("torch").nn
    twins: list[Any] = []
    for layer in network.layers:
        if isinstance(layer, Dense):
            twins.append(nn.Linear(*layer.weight.value.shape))
        elif isinstance(layer, Conv2D):
            size, _, n_in, n_out = layer.weight.value.shape
            twins.append(nn.Conv2d(n_in, n_out, size, padding=layer.padding))
        elif isinstance(layer, MaxPool2D):
            twins.append(nn.MaxPool2d(layer.size_px))
        elif isinstance(layer, Flatten):
            twins.append(ChannelsLastFlatten())
        else:
            twins.append(nn.ReLU())
    twin = nn.Sequential(*twins).to(torch_dtype(network))
    copy_to_torch(network, twin)
    return twin


def ChannelsLastFlatten() -> Any:
    nn = pytest.importorskip("torch").nn

    class Flat(nn.Module):  # type: ignore[misc, name-defined]
        def forward(self, x: Any) -> Any:
            return x.permute(0, 2, 3, 1).flatten(1)

    return Flat()


def torch_dtype(network: Network) -> Any:
    torch = pytest.importorskip("torch")
    return torch.float64 if network.dtype == np.float64 else torch.float32


def copy_to_torch(network: Network, twin: Any) -> None:
    torch = pytest.importorskip("torch")
    with torch.no_grad():
        for layer, other in zip(network.layers, twin, strict=True):
            if layer.parameters:
                weight = layer.parameters["weight"].value
                other.weight.copy_(
                    torch.tensor(weight.transpose((1, 0) if weight.ndim == 2 else (3, 2, 0, 1)))
                )
                other.bias.copy_(torch.tensor(layer.parameters["bias"].value))


def torch_parameters(network: Network, twin: Any) -> dict[str, NDArray[Any]]:
    result = {}
    for layer, other in zip(network.layers, twin, strict=True):
        if layer.parameters:
            weight = other.weight.detach().numpy()
            result[f"{layer.name}.weight"] = weight.transpose((1, 0) if weight.ndim == 2 else (2, 3, 1, 0))
            result[f"{layer.name}.bias"] = other.bias.detach().numpy()
    return result


def assert_same_weights(ours: dict[str, NDArray[Any]], theirs: dict[str, NDArray[Any]], limit: float) -> None:
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert value.shape == theirs[name].shape
        worst, size = np.abs(value - theirs[name]).max(), np.abs(theirs[name]).max()
        assert worst <= limit * size, f"{name} differs by {worst:.1e} of {size:.1e}"


def train_both(
    network: Network, twin: Any, make: Callable[[Network], Optimizer], their_optimizer: Any, rate: float
) -> None:
    """Take the same steps from the same weights, comparing losses and hits on the way."""
    torch = pytest.importorskip("torch")
    optimizer, kind = make(network), "mlp" if len(network.input_shape) == 1 else "cnn"
    for x, labels in batches_of(kind):
        losses, hits = network.train_step(x, labels, optimizer, rate, label_smoothing=0.1)
        images = torch.tensor(x if kind == "mlp" else x.transpose(0, 3, 1, 2), dtype=torch_dtype(network))
        their_optimizer.zero_grad()
        logits = twin(images)
        theirs = torch.nn.functional.cross_entropy(
            logits, torch.tensor(labels), label_smoothing=0.1, reduction="none"
        )
        theirs.mean().backward()
        their_optimizer.step()
        plain = torch.nn.functional.cross_entropy(logits, torch.tensor(labels), reduction="none")
        np.testing.assert_allclose(losses, plain.detach().numpy(), rtol=1e-3)
        second, first = np.sort(logits.detach().numpy(), axis=1)[:, -2:].T
        sure = first - second > 1e-3 * np.abs(first)  # rounding decides between equals
        assert sure.mean() > 0.5
        np.testing.assert_array_equal(hits[sure], (logits.argmax(1).numpy() == labels)[sure])


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("kind", ["mlp", pytest.param("cnn", marks=pytest.mark.slow)])
def test_a_hundred_steps_end_where_torch_ends(kind: str, optimizer: str, dtype: DTypeLike) -> None:
    torch = pytest.importorskip("torch")
    network = network_of(kind, dtype)
    before = network.parameters()
    twin = torch_twin(network)
    assert_same_weights(before, torch_parameters(network, twin), 0)
    if optimizer == "sgd":
        train_both(network, twin, sgd, torch.optim.SGD(twin.parameters(), lr=0.02, momentum=0.9), 0.02)
    else:
        train_both(network, twin, adam, torch.optim.Adam(twin.parameters(), lr=0.003), 0.003)
    limit = 1e-10 if dtype == np.float64 else 1e-4
    assert_same_weights(network.parameters(), torch_parameters(network, twin), limit)
    assert np.abs(network.parameters()["fc1.weight"] - before["fc1.weight"]).max() > 0.01  # it did move


class Lazy(Dense):
    def learn(self, grad: NDArray[Any]) -> None:
        super().learn(grad)
        self.weight.grad *= 1.01


def test_the_comparison_fails_on_a_wrong_gradient() -> None:
    torch = pytest.importorskip("torch")
    layers = layers_of("mlp")
    layers[2] = Lazy("fc2", 8)
    network = Network(layers, SHAPES["mlp"], np.random.default_rng(0), np.float64)
    twin = torch_twin(network)
    with pytest.raises(AssertionError):
        train_both(network, twin, sgd, torch.optim.SGD(twin.parameters(), lr=0.02, momentum=0.9), 0.02)
        assert_same_weights(network.parameters(), torch_parameters(network, twin), 1e-4)
    with pytest.raises(AssertionError, match="differs by"):
        assert_same_weights(network.parameters(), torch_parameters(network, twin), 1e-4)


def assert_network_gradient(network: Network, gradients: dict[str, NDArray[Any]], step: float = 1e-5) -> None:
    """Compare with central differences, for three entries of every parameter."""
    x, labels = batches_of("cnn", 1)[0]
    rng, start = np.random.default_rng(0), network.parameters()
    weights = np.linspace(0.5, 2, BATCH_SIZE)

    def loss(name: str, index: tuple[int, ...], change: float) -> float:
        moved = {key: value.copy() for key, value in start.items()}
        moved[name][index] += change
        network.load_parameters(moved)
        return float((weights * cross_entropy(network.forward(x), labels, label_smoothing=0.1)[0]).mean())

    for name, grad in gradients.items():
        for _ in range(3):
            index = tuple(int(rng.integers(size)) for size in grad.shape)
            expected = (loss(name, index, step) - loss(name, index, -step)) / (2 * step)
            worst = abs(grad[index] - expected) / np.abs(grad).max()
            assert worst <= 1e-6, f"{name} differs by {worst:.1e}"
    network.load_parameters(start)


def gradients_of(network: Network) -> dict[str, NDArray[Any]]:
    x, labels = batches_of("cnn", 1)[0]
    logits = network.forward(x, training=True)
    grad = cross_entropy(logits, labels, label_smoothing=0.1, weights=np.linspace(0.5, 2, BATCH_SIZE))[1]
    network.backward(grad)
    return network.gradients()


def test_gradient_of_the_whole_network_with_smoothing_and_weights() -> None:
    network = network_of("cnn")
    gradients = gradients_of(network)
    assert gradients.keys() == network.parameters().keys()
    assert_network_gradient(network, gradients)


def test_the_whole_check_fails_on_a_wrong_gradient() -> None:
    network = network_of("cnn")
    gradients = gradients_of(network)
    gradients["conv1.weight"] *= 1.001
    with pytest.raises(AssertionError, match=r"conv1\.weight differs"):
        assert_network_gradient(network, gradients)


@pytest.mark.parametrize(("through", "first"), [("conv1", "conv2"), ("relu2", "fc1"), ("fc1", "head")])
def test_frozen_layers_stay_the_same_to_the_bit(through: str, first: str) -> None:
    network = network_of("cnn", np.float32)
    everything = gradients_of(network)
    before = network.parameters()
    network.freeze(through)
    some = gradients_of(network)
    assert next(iter(some)) == f"{first}.weight"
    for name, grad in some.items():
        np.testing.assert_array_equal(grad, everything[name])
    network._grads[: -network.trainable_grads.size] = np.nan  # would show if anything wrote or used them
    optimizer = Adam(network.trainable_values, network.trainable_grads, weight_decay=0.1)
    for x, labels in batches_of("cnn", 20):
        network.train_step(x, labels, optimizer, 0.01)
    assert np.isnan(network._grads[: -network.trainable_grads.size]).all()
    for name, value in network.parameters().items():
        same = value.tobytes() == before[name].tobytes()
        assert same == (name.rpartition(".")[0] in network.frozen_names), name


def test_frozen_layers_run_as_in_prediction() -> None:
    layers = [Dropout("drop", 0.5, np.random.default_rng(0)), Dense("fc1", 4), Dense("head", 2)]
    network = Network(layers, (6,), np.random.default_rng(0))
    x = np.ones((3, 6), np.float32)
    assert (network.forward(x, training=True) != network.forward(x)).any()
    network.freeze("fc1")
    np.testing.assert_array_equal(network.forward(x, training=True), network.forward(x))


def test_unfreeze_lets_all_learn_again() -> None:
    network = network_of("mlp")
    network.freeze("fc2")
    assert network.frozen_names == ("fc1", "relu1", "fc2")
    assert network.trainable_values.size == 8 * N_CLASSES + N_CLASSES
    network.unfreeze()
    assert network.frozen_names == ()
    assert network.trainable_values.size == network.n_parameters


def test_replace_head_keeps_all_else() -> None:
    network = network_of("cnn", np.float32)
    before = network.parameters()
    network.freeze("fc1")
    network.replace_head(7, np.random.default_rng(3))
    after = network.parameters()
    assert (network.n_classes, after["head.weight"].shape, after["head.bias"].shape) == (7, (6, 7), (7,))
    assert network.frozen_names[-1] == "fc1"
    for name in before.keys() - {"head.weight", "head.bias"}:
        np.testing.assert_array_equal(after[name], before[name])
    x = batches_of("cnn", 1)[0][0]
    losses, hits = network.train_step(x, np.full(BATCH_SIZE, 6), adam(network), 0.1)
    assert losses.shape == hits.shape == (BATCH_SIZE,)
    assert network.logits(x).shape == (BATCH_SIZE, 7)
    assert (network.parameters()["head.weight"] != after["head.weight"]).any()
    again = network_of("cnn", np.float32)
    again.replace_head(7, np.random.default_rng(3))
    np.testing.assert_array_equal(again.parameters()["head.weight"], after["head.weight"])
    again.replace_head(7, np.random.default_rng(4))
    assert (again.parameters()["head.weight"] != after["head.weight"]).any()


@pytest.mark.parametrize(
    "change", [lambda n: n.freeze("fc1"), lambda n: n.replace_head(3, np.random.default_rng(0))]
)
def test_an_optimizer_made_too_early_is_refused(change: Callable[[Network], None]) -> None:
    network = network_of("mlp")
    optimizer = adam(network)
    change(network)
    with pytest.raises(SettingError, match=r"optimizer is made for other weights .* make it after freeze"):
        network.train_step(*batches_of("mlp", 1)[0], optimizer, 0.01)


def test_the_same_seed_gives_the_same_network_to_the_bit() -> None:
    runs = []
    for seed in (5, 5, 6):
        network = network_of("cnn", np.float32, seed)
        optimizer = adam(network)
        for x, labels in batches_of("cnn", 5):
            network.train_step(x, labels, optimizer, 0.01)
        runs.append(network.parameters())
    for name, value in runs[0].items():
        assert value.tobytes() == runs[1][name].tobytes()
        assert value.tobytes() != runs[2][name].tobytes()


def test_either_precision_starts_from_the_same_weights() -> None:
    narrow, wide = network_of("cnn", np.float32).parameters(), network_of("cnn", np.float64).parameters()
    for name, value in narrow.items():
        assert value.dtype == np.float32
        np.testing.assert_array_equal(value, wide[name].astype(np.float32))


def test_results_are_the_callers_own_and_inputs_stay() -> None:
    network = network_of("cnn", np.float32)
    x = batches_of("cnn", 1)[0][0].astype(np.float32)
    kept_x = x.copy()
    results = [network.forward(x), network.logits(x), *network.parameters().values()]
    kept = [result.copy() for result in results]
    optimizer = adam(network)
    for images, labels in batches_of("cnn", 3):
        network.train_step(images, labels, optimizer, 0.1)
    losses, hits = network.train_step(x, np.zeros(BATCH_SIZE, int), optimizer, 0.1)
    kept += [losses.copy(), hits.copy()]
    network.logits(x + 1)
    network.train_step(x + 1, np.ones(BATCH_SIZE, int), optimizer, 0.1)
    for result, copy in zip([*results, losses, hits], kept, strict=True):
        np.testing.assert_array_equal(result, copy)
    np.testing.assert_array_equal(x, kept_x)
    flat = Network([Flatten("flat"), Dense("head", 2)], (2, 2, 1), np.random.default_rng(0))
    one = np.ones((1, 2, 2, 1), np.float32)
    assert not np.shares_memory(flat.forward(one), flat.forward(one))


def test_weights_in_use_lie_in_one_vector() -> None:
    network = network_of("cnn", np.float32)
    values = np.concatenate([value.ravel() for value in network.parameters().values()])
    np.testing.assert_array_equal(network.trainable_values, values)
    assert network.n_parameters == values.size
    assert network.trainable_values.flags.c_contiguous
    gradients = gradients_of(network)
    np.testing.assert_array_equal(
        network.trainable_grads, np.concatenate([grad.ravel() for grad in gradients.values()])
    )


def test_logits_do_not_depend_on_the_batch_size_and_may_be_none() -> None:
    network = network_of("cnn", np.float32)
    x = np.concatenate([x for x, _ in batches_of("cnn", 4)])
    whole = network.logits(x)
    assert whole.dtype == np.float32
    np.testing.assert_allclose(network.logits(x, batch_size=5), whole, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(network.forward(x), whole)
    assert network.logits(x[:0]).shape == (0, N_CLASSES)


def test_a_step_reuses_its_buffers() -> None:
    network = network_of("cnn", np.float32)
    x, labels = np.ones((512, *SHAPES["cnn"]), np.float32), np.zeros(512, np.int64)
    optimizer = adam(network)
    network.train_step(x, labels, optimizer, 0.01)
    tracemalloc.start()
    network.train_step(x, labels, optimizer, 0.01)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < x.nbytes / 4  # the maps of the first layer are twice as big as x


def test_training_learns() -> None:
    network = network_of("cnn", np.float32)
    x, labels = batches_of("cnn", 1)[0]
    optimizer = adam(network)
    first, _ = network.train_step(x, labels, optimizer, 0.01)
    for _ in range(100):
        last, hits = network.train_step(x, labels, optimizer, 0.01)
    assert last.mean() < 0.05 < first.mean()
    assert hits.all()


def test_an_image_of_weight_zero_teaches_nothing() -> None:
    x, labels = batches_of("mlp", 1)[0]
    trained = []
    for other in (0, 1):
        network = network_of("mlp")
        changed = labels.copy()
        changed[-1] = other
        weights = np.array([1.0] * (BATCH_SIZE - 1) + [0.0])
        network.train_step(x, changed, sgd(network), 0.1, weights=weights)
        trained.append(network.parameters())
    for name, value in trained[0].items():
        np.testing.assert_array_equal(value, trained[1][name])


def test_parameters_come_back_as_they_were() -> None:
    network, other = network_of("cnn", np.float32), network_of("cnn", np.float32, seed=1)
    x, labels = batches_of("cnn", 1)[0]
    optimizer = adam(other)
    other.load_parameters(network.parameters())
    np.testing.assert_array_equal(other.logits(x), network.logits(x))
    other.train_step(x, labels, optimizer, 0.01)  # made before loading, and still good
    assert (other.logits(x) != network.logits(x)).any()


def test_parameters_of_another_network_are_refused_whole() -> None:
    network = network_of("mlp")
    before = network.parameters()
    wrong = {name: value + 1 for name, value in before.items() if name != "fc1.bias"}
    wrong |= {"fc2.bias": np.zeros(3), "fc9.bias": np.zeros(3)}
    with pytest.raises(ShapeError) as caught:
        network.load_parameters(wrong)
    for fault in ("fc1.bias is missing", "fc9.bias is unknown", "fc2.bias has shape (3,), not (8,)"):
        assert fault in str(caught.value)
    for name, value in network.parameters().items():
        np.testing.assert_array_equal(value, before[name])


def fresh(*layers: Layer, shape: Sequence[int] = (4,), dtype: DTypeLike = np.float32) -> Network:
    return Network(layers, tuple(shape), np.random.default_rng(0), dtype)


@pytest.mark.parametrize(
    ("make", "error", "sentence"),
    [
        (fresh, SettingError, "layers have no weights, expected"),
        (lambda: fresh(ReLU("r")), SettingError, "layers have no weights, expected"),
        (lambda: fresh(Dense("a", 2), ReLU("a")), SettingError, "layer name 'a' is used more than once"),
        (lambda: fresh(*network_of("mlp").layers), SettingError, "layer 'fc1' belongs to a network already"),
        (
            lambda: fresh(Dense("a", 2), dtype=np.float16),
            SettingError,
            "dtype is float16, expected float32 or",
        ),
        (lambda: fresh(Dense("a", 2), shape=(2, 2)), ShapeError, "put a Flatten before it"),
        (
            lambda: fresh(Conv2D("a", 2), shape=(5, 5, 1)),
            ShapeError,
            r"output of the network has shape \(3, 3, 2\)",
        ),
    ],
)
def test_networks_that_cannot_be_are_named(
    make: Callable[[], Network], error: type[Exception], sentence: str
) -> None:
    with pytest.raises(error, match=sentence):
        make()


X, LABELS = batches_of("mlp", 1)[0]


@pytest.mark.parametrize(
    ("use", "error", "sentence"),
    [
        (lambda n: n.forward(X[0]), ShapeError, r"x has shape \(20,\), expected \(n_images, 20\)"),
        (lambda n: n.forward(X[:, :3]), ShapeError, r"x has shape \(8, 3\), expected \(n_images, 20\)"),
        (lambda n: n.forward(X[:0]), ShapeError, r"x has shape \(0, 20\), expected at least one image"),
        (lambda n: n.forward(1.0), ShapeError, r"x has shape \(.*\), expected"),
        (lambda n: n.logits(X[:, :3]), ShapeError, r"x has shape \(8, 3\), expected"),
        (lambda n: n.logits(X, 0), SettingError, "batch_size is 0, expected at least 1"),
        (
            lambda n: n.backward(X),
            SettingError,
            "grad has no training pass to follow, expected one just before",
        ),
        (
            lambda n: n.train_step(X, LABELS[:3], sgd(n), 0.1),
            ShapeError,
            r"labels has shape \(3,\), expected \(8,\)",
        ),
        (
            lambda n: n.train_step(X, LABELS + 3, sgd(n), 0.1),
            UnknownClassError,
            "labels has code 5, expected codes",
        ),
        (
            lambda n: n.train_step(X, LABELS, sgd(n), -1.0),
            SettingError,
            "learning_rate is -1.0, expected a finite",
        ),
        (
            lambda n: n.train_step(X, LABELS, sgd(n), float("nan")),
            SettingError,
            "learning_rate is nan, expected",
        ),
        (
            lambda n: n.freeze("fc3"),
            SettingError,
            "layer 'fc3' is unknown, expected one of .*; nearest are fc",
        ),
        (
            lambda n: n.freeze("head"),
            SettingError,
            "layer 'head' is the last with weights, expected one before it",
        ),
        (
            lambda n: n.replace_head(0, np.random.default_rng(0)),
            SettingError,
            "units of 'head' is 0, expected",
        ),
    ],
)
def test_misuse_is_named(use: Callable[[Network], Any], error: type[Exception], sentence: str) -> None:
    network = network_of("mlp")
    with pytest.raises(error, match=sentence):
        use(network)


def test_backward_needs_the_training_pass_just_before() -> None:
    network = network_of("mlp")
    grad = np.ones_like(network.forward(X, training=True))
    network.backward(grad)
    with pytest.raises(ShapeError, match=r"grad has shape \(3, 3\), expected \(8, 3\)"):
        network.backward(grad[:3])
    network.logits(X)
    with pytest.raises(SettingError, match="grad has no training pass to follow"):
        network.backward(grad)


def test_only_a_dense_head_can_be_replaced() -> None:
    network = fresh(Dense("fc", 2), ReLU("last"))
    with pytest.raises(SettingError, match="last layer 'last' is a ReLU, expected a Dense"):
        network.replace_head(3, np.random.default_rng(0))


def test_its_picture_in_words() -> None:
    assert repr(network_of("mlp")) == "Network(fc1 > relu1 > fc2 > relu2 > head, 499 parameters)"
