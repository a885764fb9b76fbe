"""Cross-entropy against central differences, PyTorch and its own bounds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from headstart.errors import SettingError, ShapeError, UnknownClassError
from headstart.scratch import cross_entropy, softmax

STEP = 1e-5
LABELS = np.array([0, 2, 1, 2])
LOGITS = np.random.default_rng(0).standard_normal((4, 3)) * 2
WEIGHTS = np.array([1.0, 0.0, 2.5, 0.7])


def assert_loss_gradient(grad: NDArray[Any], smoothing: float, weights: NDArray[Any] | None) -> None:
    """Compare with central differences of ``mean(weights * losses)``."""
    factors = np.ones(4) if weights is None else weights
    expected = np.zeros_like(LOGITS)
    for index in np.ndindex(LOGITS.shape):
        above, below = LOGITS.copy(), LOGITS.copy()
        above[index] += STEP
        below[index] -= STEP
        high, low = (
            (factors * cross_entropy(z, LABELS, label_smoothing=smoothing)[0]).mean() for z in (above, below)
        )
        expected[index] = (high - low) / (2 * STEP)
    worst = np.abs(grad - expected).max() / np.abs(expected).max()
    assert worst <= 1e-6, f"relative error {worst:.1e}"


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_gradient_agrees_with_central_differences(smoothing: float, weights: NDArray[Any] | None) -> None:
    _, grad = cross_entropy(LOGITS, LABELS, label_smoothing=smoothing, weights=weights)
    assert_loss_gradient(grad, smoothing, weights)


@pytest.mark.parametrize(
    ("smoothing", "weights", "factor"), [(0.0, None, 1 + 1e-5), (0.1, WEIGHTS, 4 / WEIGHTS.sum())]
)
def test_the_check_fails_on_a_wrong_gradient(
    smoothing: float, weights: NDArray[Any] | None, factor: float
) -> None:
    _, grad = cross_entropy(LOGITS, LABELS, label_smoothing=smoothing, weights=weights)
    with pytest.raises(AssertionError, match="relative error"):
        assert_loss_gradient(grad * factor, smoothing, weights)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_losses_agree_with_torch(smoothing: float) -> None:
    torch = pytest.importorskip("torch")
    logits = torch.tensor(LOGITS, requires_grad=True)
    expected = torch.nn.functional.cross_entropy(
        logits, torch.tensor(LABELS), label_smoothing=smoothing, reduction="none"
    )
    (expected * torch.tensor(WEIGHTS)).mean().backward()
    losses, grad = cross_entropy(LOGITS, LABELS, label_smoothing=smoothing, weights=WEIGHTS)
    np.testing.assert_allclose(losses, expected.detach().numpy(), rtol=1e-12)
    np.testing.assert_allclose(grad, logits.grad.numpy(), rtol=1e-10, atol=1e-15)


def test_huge_logits_neither_overflow_nor_vanish() -> None:
    logits = np.array([[1e4, -1e4], [-1e4, 1e4]], np.float32)
    losses, grad = cross_entropy(logits, np.array([0, 0]))
    assert losses.tolist() == [0.0, 2e4]
    assert grad.tolist() == [[0.0, 0.0], [-0.5, 0.5]]
    assert softmax(logits).tolist() == [[1.0, 0.0], [0.0, 1.0]]


def test_softmax_rows_sum_to_one_and_inputs_stay() -> None:
    kept = LOGITS.copy()
    probs = softmax(LOGITS)
    np.testing.assert_allclose(probs.sum(axis=1), 1, rtol=1e-15)
    np.testing.assert_allclose(probs[:, 0] / probs[:, 1], np.exp(LOGITS[:, 0] - LOGITS[:, 1]), rtol=1e-12)
    cross_entropy(LOGITS, LABELS, label_smoothing=0.1, weights=WEIGHTS)
    np.testing.assert_array_equal(LOGITS, kept)


def test_float32_stays_float32() -> None:
    results = cross_entropy(LOGITS.astype(np.float32), LABELS, label_smoothing=0.1, weights=WEIGHTS)
    assert [array.dtype for array in results] == [np.float32, np.float32]


@pytest.mark.parametrize(
    ("error", "sentence", "change"),
    [
        (SettingError, r"label_smoothing is 1.0, expected a number in \[0, 1\)", {"label_smoothing": 1.0}),
        (SettingError, "label_smoothing is -0.1, expected", {"label_smoothing": -0.1}),
        (ShapeError, r"logits has shape \(3,\), expected \(n_images, n_classes\)", {"logits": np.zeros(3)}),
        (ShapeError, r"logits has shape \(0, 3\), expected", {"logits": np.zeros((0, 3))}),
        (ShapeError, r"labels has shape \(3,\), expected \(4,\)", {"labels": LABELS[:3]}),
        (ShapeError, r"labels has shape \(4, 1\), expected \(4,\)", {"labels": LABELS[:, None]}),
        (ShapeError, "labels has dtype float64, expected whole numbers", {"labels": LABELS.astype(float)}),
        (ShapeError, r"weights has shape \(2,\), expected \(4,\)", {"weights": WEIGHTS[:2]}),
        (UnknownClassError, "labels has code 3, expected codes from 0 to 2", {"labels": LABELS + 1}),
        (UnknownClassError, "labels has code -1, expected codes from 0 to 2", {"labels": LABELS - 1}),
    ],
)
def test_bad_arguments_are_named(error: type[Exception], sentence: str, change: dict[str, Any]) -> None:
    with pytest.raises(error, match=sentence):
        cross_entropy(**({"logits": LOGITS, "labels": LABELS} | change))
