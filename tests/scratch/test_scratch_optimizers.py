"""The optimizers against PyTorch's, step for step on the same gradients."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from headstart.errors import SettingError, ShapeError
from headstart.scratch import SGD, Adam, Optimizer

N_STEPS = 50
CASES: dict[str, tuple[type[Optimizer], dict[str, Any], str, dict[str, Any]]] = {
    "sgd": (SGD, {"momentum": 0.0}, "SGD", {}),
    "sgd, momentum": (SGD, {"momentum": 0.9}, "SGD", {"momentum": 0.9}),
    "sgd, momentum, decay": (
        *(SGD, {"momentum": 0.8, "weight_decay": 0.1}),
        *("SGD", {"momentum": 0.8, "weight_decay": 0.1}),
    ),
    "adam": (Adam, {}, "Adam", {}),
    "adam, big eps": (Adam, {"eps": 0.1}, "Adam", {"eps": 0.1}),
    "adam, betas": (Adam, {"beta1": 0.7, "beta2": 0.9}, "Adam", {"betas": (0.7, 0.9)}),
    "adam, decay": (Adam, {"weight_decay": 0.1}, "Adam", {"weight_decay": 0.1}),
    "adamw": (Adam, {"weight_decay": 0.1, "decoupled": True}, "AdamW", {"weight_decay": 0.1}),
}


def rate(step: int) -> float:
    """A learning rate that changes, as under a schedule."""
    return 0.01 * (1 + step % 5)


def gradients() -> NDArray[np.float64]:
    return np.random.default_rng(1).standard_normal((N_STEPS, 7)) * 10.0 ** np.arange(-5, 2)


def run_ours(make: type[Optimizer], options: dict[str, Any]) -> NDArray[np.float64]:
    values, grads = np.linspace(-1, 1, 7), np.zeros(7)
    optimizer = make(values, grads, **options)
    for step, grad in enumerate(gradients()):
        grads[:] = grad
        optimizer.step(rate(step))
        np.testing.assert_array_equal(grads, grad)  # read, not changed
    return values


def run_torch(name: str, options: dict[str, Any]) -> NDArray[np.float64]:
    torch = pytest.importorskip("torch")
    values = torch.nn.Parameter(torch.linspace(-1, 1, 7, dtype=torch.float64))
    optimizer = getattr(torch.optim, name)([values], **options)
    for step, grad in enumerate(gradients()):
        values.grad = torch.tensor(grad)
        optimizer.param_groups[0]["lr"] = rate(step)
        optimizer.step()
    return np.asarray(values.detach().numpy())


def assert_same_path(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> None:
    worst = np.abs(ours - theirs).max() / np.abs(theirs).max()
    assert worst <= 1e-12, f"relative difference {worst:.1e}"


@pytest.mark.parametrize("name", CASES)
def test_agrees_with_torch(name: str) -> None:
    ours, options, theirs, their_options = CASES[name]
    assert_same_path(run_ours(ours, options), run_torch(theirs, their_options))


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("sgd, momentum", {"momentum": 0.9001}),
        ("sgd, momentum, decay", {"momentum": 0.8}),
        ("adam", {"eps": 1.1e-8}),
        ("adam, betas", {"beta1": 0.9, "beta2": 0.7}),
        ("adamw", {"weight_decay": 0.1}),
    ],
)
def test_the_comparison_fails_on_a_wrong_option(name: str, wrong: dict[str, Any]) -> None:
    ours, _, theirs, their_options = CASES[name]
    expected = run_torch(theirs, their_options)
    with pytest.raises(AssertionError, match="relative difference"):
        assert_same_path(run_ours(ours, wrong), expected)


@pytest.mark.parametrize("make", [SGD, Adam])
def test_a_step_changes_in_place_and_makes_no_arrays(make: type[Optimizer]) -> None:
    values, grads = np.ones(100_000, np.float32), np.ones(100_000, np.float32)
    optimizer = make(values, grads, weight_decay=0.1)
    optimizer.step(0.01)
    tracemalloc.start()
    optimizer.step(0.01)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 10_000
    assert optimizer.values is values
    assert (values < 1).all()


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda v: SGD(v, v.copy(), momentum=1.0), r"momentum is 1.0, expected a number in \[0, 1\)"),
        (
            lambda v: SGD(v, v.copy(), weight_decay=-1.0),
            "weight_decay is -1.0, expected a number of at least 0",
        ),
        (lambda v: Adam(v, v.copy(), beta1=-0.1), "beta1 is -0.1, expected"),
        (lambda v: Adam(v, v.copy(), beta2=1.0), "beta2 is 1.0, expected"),
        (lambda v: Adam(v, v.copy(), eps=0.0), "eps is 0.0, expected a number above 0"),
    ],
)
def test_bad_options_are_named(make: Callable[[NDArray[Any]], Optimizer], sentence: str) -> None:
    with pytest.raises(SettingError, match=sentence):
        make(np.zeros(3))


@pytest.mark.parametrize("grads", [np.zeros(2), np.zeros((3, 1)), np.zeros(3, np.float32)])
def test_vectors_that_do_not_match_are_named(grads: NDArray[Any]) -> None:
    with pytest.raises(
        ShapeError, match=r"grads is float\d\d of shape \(.*\), expected float64 of shape \(3,\)"
    ):
        SGD(np.zeros(3), grads)
