"""Every layer against central differences in float64, and what each promises next to its gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from headstart.errors import SettingError, ShapeError
from headstart.scratch import Conv2D, Dense, Dropout, Flatten, Layer, MaxPool2D, ReLU, TrainableLayer

Float64 = NDArray[np.float64]
STEP = 1e-5
TOLERANCE = 1e-6


def numeric_gradient(loss: Callable[[], float], array: NDArray[Any]) -> Float64:
    """Central differences of ``loss`` for every entry of ``array``, which it reads."""
    grad = np.zeros(array.shape)
    for index in np.ndindex(array.shape):
        kept = array[index]
        array[index] = kept + STEP
        above = loss()
        array[index] = kept - STEP
        below = loss()
        array[index] = kept
        grad[index] = (above - below) / (2 * STEP)
    return grad


def assert_gradient(grad: NDArray[Any], expected: Float64) -> None:
    assert grad.shape == expected.shape
    worst = np.abs(grad - expected).max() / np.abs(expected).max()
    assert worst <= TOLERANCE, f"relative error {worst:.1e}"


def check_layer(layer: Layer, shape: tuple[int, ...], n_images: int = 3) -> None:
    """Compare all gradients of ``sum(outputs * fixed)`` with central differences."""
    rng = np.random.default_rng(1)
    out_shape = layer.build(shape, rng, np.float64)
    x, fixed = rng.standard_normal((n_images, *shape)), rng.standard_normal((n_images, *out_shape))
    for parameter in layer.parameters.values():
        parameter.value += rng.standard_normal(parameter.value.shape)  # a bias of zero would hide faults

    def loss() -> float:
        if isinstance(layer, Dropout):
            layer.rng = np.random.default_rng(5)
        return float((layer.forward(x, training=True) * fixed).sum())

    numeric = {name: numeric_gradient(loss, p.value) for name, p in layer.parameters.items()}
    numeric_x = numeric_gradient(loss, x)
    for _ in range(2):  # twice: nothing may pile up in the buffers
        loss()
        grad_x = layer.backward(fixed)
        assert_gradient(grad_x, numeric_x)
        for name, parameter in layer.parameters.items():
            assert_gradient(parameter.grad, numeric[name])


LAYERS: dict[str, tuple[Callable[[], Layer], tuple[int, ...]]] = {
    "dense": (lambda: Dense("l", 4), (5,)),
    "conv valid": (lambda: Conv2D("l", 3), (5, 6, 2)),
    "conv same": (lambda: Conv2D("l", 3, padding="same"), (4, 5, 2)),
    "conv same, even kernel": (lambda: Conv2D("l", 2, 2, "same"), (3, 4, 2)),
    "conv same, bigger than the map": (lambda: Conv2D("l", 2, 5, "same"), (3, 2, 1)),
    "conv 1 x 1": (lambda: Conv2D("l", 3, 1), (2, 3, 2)),
    "pool": (lambda: MaxPool2D("l"), (4, 6, 2)),
    "pool, odd map": (lambda: MaxPool2D("l"), (5, 7, 2)),
    "pool 3": (lambda: MaxPool2D("l", 3), (7, 8, 2)),
    "relu": (lambda: ReLU("l"), (3, 4, 2)),
    "flatten": (lambda: Flatten("l"), (2, 3, 2)),
    "dropout": (lambda: Dropout("l", 0.4, np.random.default_rng(0)), (3, 4)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_gradient_agrees_with_central_differences(name: str) -> None:
    make, shape = LAYERS[name]
    check_layer(make(), shape)


class NoBias(Dense):
    def learn(self, grad: NDArray[Any]) -> None:
        super().learn(grad)
        self.bias.grad *= 1 + 1e-4


class WrongInput(Conv2D):
    def backward(self, grad: NDArray[Any]) -> NDArray[Any]:
        return super().backward(grad)[:, ::-1]


class WrongWeight(Conv2D):
    def learn(self, grad: NDArray[Any]) -> None:
        super().learn(grad)
        self.weight.grad[...] = self.weight.grad[::-1]


class Shifted(ReLU):
    def backward(self, grad: NDArray[Any]) -> NDArray[Any]:
        return grad


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (NoBias("l", 4), (5,)),
        (WrongInput("l", 3), (5, 6, 2)),
        (WrongWeight("l", 3), (5, 6, 2)),
        (Shifted("l"), (4,)),
    ],
)
def test_the_check_fails_on_a_wrong_gradient(layer: Layer, shape: tuple[int, ...]) -> None:
    with pytest.raises(AssertionError, match="relative error"):
        check_layer(layer, shape)


@pytest.mark.parametrize("name", LAYERS)
def test_a_smaller_batch_after_a_bigger_one_is_as_good_as_alone(name: str) -> None:
    make, shape = LAYERS[name]
    x = np.random.default_rng(2).standard_normal((5, *shape)).astype(np.float32)
    results = []
    for sizes in ((5, 2), (2,)):
        layer = make()
        out_shape = layer.build(shape, np.random.default_rng(3), np.float32)
        for n_images in sizes:
            if isinstance(layer, Dropout):
                layer.rng = np.random.default_rng(4)
            out = layer.forward(x[:n_images], training=True).copy()
            grad_x = layer.backward(np.ones((n_images, *out_shape), np.float32)).copy()
        assert out.dtype == grad_x.dtype == np.float32
        results.append((out, grad_x))
    np.testing.assert_array_equal(results[0][0], results[1][0])
    np.testing.assert_array_equal(results[0][1], results[1][1])


def test_convolution_is_the_sum_it_says() -> None:
    layer = Conv2D("l", 2)
    rng = np.random.default_rng(0)
    assert layer.build((5, 6, 3), rng, np.float64) == (3, 4, 2)
    layer.bias.value[:] = [1.0, -2.0]
    x = rng.standard_normal((2, 5, 6, 3))
    out = layer.forward(x, training=False)
    expected = (x[1, 2:5, 3:6, :, None] * layer.weight.value).sum(axis=(0, 1, 2)) + [1.0, -2.0]
    np.testing.assert_allclose(out[1, 2, 3], expected, rtol=1e-12)


def test_same_padding_keeps_the_size_and_puts_the_extra_row_last() -> None:
    layer = Conv2D("l", 1, 2, "same")
    assert layer.build((2, 2, 1), np.random.default_rng(0), np.float64) == (2, 2, 1)
    layer.weight.value[...] = 1
    out = layer.forward(np.array([[1.0, 2.0], [3.0, 4.0]]).reshape(1, 2, 2, 1), training=False)
    assert out[0, :, :, 0].tolist() == [[10, 6], [7, 4]]


def test_of_equal_values_the_first_takes_the_gradient() -> None:
    layer = MaxPool2D("l")
    layer.build((2, 4, 1), np.random.default_rng(0), np.float64)
    x = np.array([[[0.0, 1, 5, 5], [1, 1, 5, 5]]])[..., None]
    layer.forward(x, training=True)
    assert layer.backward(np.array([[[2.0, 3.0]]])[..., None])[0, :, :, 0].tolist() == [
        [0, 2, 3, 0],
        [0, 0, 0, 0],
    ]


def test_dropped_rows_and_columns_get_no_gradient() -> None:
    layer = MaxPool2D("l")
    layer.build((3, 3, 1), np.random.default_rng(0), np.float64)
    layer.forward(np.full((1, 3, 3, 1), 7.0), training=True)
    grad_x = layer.backward(np.ones((1, 1, 1, 1)))
    assert grad_x.sum() == grad_x[0, 0, 0, 0] == 1


def test_flatten_reads_rows_then_columns_then_channels() -> None:
    x = np.arange(12.0).reshape(1, 2, 3, 2)
    assert Flatten("l").forward(x, training=False)[0].tolist() == list(range(12))


def test_dropout_keeps_the_mean_and_rests_in_prediction() -> None:
    layer = Dropout("l", 0.3, np.random.default_rng(0))
    x = np.ones((200, 500), np.float32)
    assert layer.forward(x, training=False) is x
    out = layer.forward(x, training=True)
    assert set(np.unique(out).tolist()) == {0.0, float(np.float32(1 / 0.7))}
    assert abs(float((out == 0).mean()) - 0.3) < 0.01
    assert abs(float(out.mean()) - 1) < 0.01


def test_dropout_draws_a_new_mask_each_time_and_the_same_from_the_same_seed() -> None:
    x = np.ones((4, 50))
    one, two = (Dropout("l", 0.5, np.random.default_rng(9)) for _ in range(2))
    first = one.forward(x, training=True).copy()
    np.testing.assert_array_equal(first, two.forward(x, training=True))
    assert (first != one.forward(x, training=True)).any()


def test_dropout_of_rate_zero_changes_nothing() -> None:
    x = np.random.default_rng(0).standard_normal((4, 5))
    np.testing.assert_array_equal(Dropout("l", 0.0, np.random.default_rng(0)).forward(x, training=True), x)


@pytest.mark.parametrize(
    ("layer", "shape", "fan_in"), [(Dense("l", 200), (400,), 400), (Conv2D("l", 64), (8, 8, 32), 288)]
)
def test_weights_are_drawn_after_he_and_biases_are_zero(
    layer: TrainableLayer, shape: tuple[int, ...], fan_in: int
) -> None:
    layer.build(shape, np.random.default_rng(0), np.float32)
    weight = layer.weight.value
    assert weight.dtype == layer.weight.grad.dtype == np.float32
    assert abs(weight.std() / np.sqrt(2 / fan_in) - 1) < 0.02
    assert abs(weight.mean()) < 0.001
    assert not layer.bias.value.any()


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Dense("fc", 0), "units of 'fc' is 0, expected a whole number of at least 1"),
        (lambda: Dense("fc", 2.5), "units of 'fc' is 2.5, expected a whole number"),  # type: ignore[arg-type]
        (lambda: Conv2D("c", -1), "channels of 'c' is -1, expected"),
        (lambda: Conv2D("c", 1, 0), "kernel_px of 'c' is 0, expected"),
        (lambda: Conv2D("c", 1, 3, "full"), "padding of 'c' is 'full', expected 'valid' or 'same'"),
        (lambda: MaxPool2D("p", 0), "size_px of 'p' is 0, expected"),
        (
            lambda: Dropout("d", 1.0, np.random.default_rng(0)),
            r"rate of 'd' is 1.0, expected a number in \[0, 1\)",
        ),
        (lambda: Dropout("d", float("nan"), np.random.default_rng(0)), "rate of 'd' is nan, expected"),
    ],
)
def test_bad_options_are_named(make: Callable[[], Layer], sentence: str) -> None:
    with pytest.raises(SettingError, match=sentence):
        make()


@pytest.mark.parametrize(
    ("layer", "shape", "sentence"),
    [
        (Dense("fc", 2), (3, 3, 1), r"input of dense 'fc' has shape \(3, 3, 1\), expected \(n_features,\)"),
        (Conv2D("c", 2), (9,), r"input of conv2d 'c' has shape \(9,\), expected \(height, width, channels\)"),
        (Conv2D("c", 2), (2, 9, 1), "of at least 3 x 3 px"),
        (MaxPool2D("p"), (9,), r"input of maxpool2d 'p' has shape \(9,\), expected"),
        (MaxPool2D("p"), (4, 1, 1), "of at least 2 x 2 px"),
    ],
)
def test_inputs_that_do_not_fit_are_named(layer: Layer, shape: tuple[int, ...], sentence: str) -> None:
    with pytest.raises(ShapeError, match=sentence):
        layer.build(shape, np.random.default_rng(0), np.float32)
