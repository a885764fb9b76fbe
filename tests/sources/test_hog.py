"""The source ``hog``: histograms of oriented gradients as a graph, against the same in NumPy."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from headstart.data.readers.load import load
from headstart.graph.run import ReferenceRun, compile_graph
from headstart.records import InputSpec
from headstart.sources.hog import hog_source
from headstart.sources.registry import open_source


def histograms(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    source = hog_source(InputSpec(*images.shape[1:]))
    (found,) = ReferenceRun(onnx.ModelProto.FromString(source.graph))(images)
    assert found.shape[1:] == source.layers["histograms"]
    return np.asarray(found)


def by_hand(image: NDArray[np.uint8], cell: int) -> NDArray[np.float64]:
    """One grey image, pixel by pixel."""
    values = np.pad(image[..., 0] / 255.0, 1, mode="edge")
    height, width = image.shape[:2]
    cells = np.zeros((9, height // cell, width // cell))
    for row in range(height // cell * cell):
        for column in range(width // cell * cell):
            across = values[row + 1, column + 2] - values[row + 1, column]
            down = values[row + 2, column + 1] - values[row, column + 1]
            angle = np.arctan(down / (across + 1e-6))
            for number in range(9):
                apart = abs(angle - (-np.pi / 2 + np.pi / 9 * (number + 0.5)))
                share = max(0.0, 1 - min(apart, np.pi - apart) / (np.pi / 9))
                cells[number, row // cell, column // cell] += share * np.hypot(across, down) / cell**2
    corners = [
        cells[:, i : cells.shape[1] - 1 + i, j : cells.shape[2] - 1 + j] for i in (0, 1) for j in (0, 1)
    ]
    blocks = np.concatenate(corners)
    return np.asarray(blocks / (np.linalg.norm(blocks, axis=0) + 1e-3))


@pytest.mark.parametrize(("side", "cell"), [(8, 2), (28, 4), (48, 8)])
def test_the_graph_computes_histograms(side: int, cell: int) -> None:
    images = np.random.default_rng(side).integers(0, 256, (2, side, side + 3, 1)).astype(np.uint8)
    found = histograms(images)
    for image, value in zip(images, found, strict=True):
        np.testing.assert_allclose(value, by_hand(image, cell), atol=2e-4)


def test_contrast_and_brightness_hardly_matter() -> None:
    """A block has length 1, and only differences count."""
    image = np.random.default_rng(0).integers(0, 200, (1, 28, 28, 1)).astype(np.uint8)
    for other in (image + 40, image // 2):
        np.testing.assert_allclose(histograms(other.astype(np.uint8)), histograms(image), atol=0.06)


def test_an_even_image_has_finite_features() -> None:
    """Nothing is divided by zero."""
    assert not histograms(np.full((1, 28, 28, 1), 255, np.uint8)).any()


def test_colour_counts_as_luminance() -> None:
    grey = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 1)).astype(np.uint8)
    np.testing.assert_allclose(histograms(np.repeat(grey, 3, axis=3)), histograms(grey), atol=1e-3)


@pytest.mark.parametrize("size", [(1, 1), (2, 5), (4, 64)])
def test_tiny_and_long_images_have_features(size: tuple[int, int]) -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, *size, 1)).astype(np.uint8)
    assert np.isfinite(histograms(images)).all()


def test_it_can_be_taught_and_saved_like_any_source() -> None:
    """A model without any network."""
    from headstart.data.splits import holdout
    from headstart.strategies.probe import learn_head

    digits = load("digits")
    train, test = holdout(digits.labels, 0.5, 0)
    model = learn_head(open_source("hog", digits), digits.subset(train)).model
    held = digits.subset(test)
    assert (model.predict(held, refuse=False) == held.labels).mean() > 0.97


def test_flat_colours_are_zeros_in_every_runtime() -> None:
    """Rounding errors, which runtimes do not share, would decide otherwise: an export was refused for them."""
    flat = np.random.default_rng(0).integers(0, 256, (40, 1, 1, 3)).astype(np.uint8)
    images = np.ascontiguousarray(np.broadcast_to(flat, (40, 30, 20, 3)))
    source = hog_source(InputSpec(30, 20, 3))
    graph = onnx.ModelProto.FromString(source.graph)
    for runtime in ("openvino", "onnxruntime"):
        found = compile_graph(graph, runtime=runtime, precision="fp32", batch_size=8).run([images], 40)
        assert not found.any()
