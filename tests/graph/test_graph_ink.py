"""The ink policy as a graph gives the pixels of data.images.ink, or one level off where a sum lies between two."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper
from PIL import Image, ImageDraw

from headstart.data.images import ink as page
from headstart.data.images.fit import fit_image
from headstart.data.images.prepare import decode
from headstart.graph.build import GraphBuilder
from headstart.graph.preparation.ink import _reduced
from headstart.graph.preparation.prepare import preparation_graph
from headstart.graph.preparation.tensors import Workspace
from headstart.graph.run import ReferenceRun
from headstart.records import InputSpec

SPEC = InputSpec(28, 28, 1, policy="ink")
RUN = ReferenceRun(preparation_graph(SPEC))


def drawn(height: int, width: int, seed: int, paper: int = 225, pen: int = 50) -> np.ndarray:
    """A few strokes on noisy paper that darkens to one side, (height, width)."""
    rng = np.random.default_rng(seed)
    sheet = Image.new("L", (width, height), paper)
    draw = ImageDraw.Draw(sheet)
    for _ in range(3):
        ends = (rng.uniform(0.2, 0.8, 4) * [width, height, width, height]).astype(int).tolist()
        draw.line(ends, fill=pen, width=max(1, min(height, width) // 20))
    light = np.linspace(1, 0.8, width)
    return (np.asarray(sheet) * light + rng.normal(0, 3, (height, width))).clip(0, 255).astype(np.uint8)


def off(image: np.ndarray, run: ReferenceRun = RUN, spec: InputSpec = SPEC) -> int:
    """Levels between the graph's pixels and NumPy's at most."""
    colour = (
        image
        if image.ndim == 3 and image.shape[2] == 3
        else np.repeat(image.reshape(*image.shape[:2], 1), 3, 2)
    )
    found = run(colour)[0][0]
    assert found.shape == spec.shape and found.dtype == np.uint8
    return int(np.abs(found.astype(int) - fit_image(image, spec)).max())


@pytest.mark.parametrize(
    "size",
    [(28, 28), (20, 31), (5, 9), (24, 24), (131, 131), (392, 300), (512, 400), (513, 200), (700, 1300)],
)
def test_pages_of_every_size(size):
    for seed, (paper, pen) in enumerate([(225, 50), (30, 230), (255, 0)]):
        assert off(drawn(*size, seed, paper, pen)) <= 1


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (2, 900), (50, 40)])
@pytest.mark.parametrize("grey", [0, 128, 255])
def test_blank_pages_are_blank(size, grey):
    assert not RUN(np.full((*size, 3), grey, np.uint8))[0].any()


def test_strokes_are_there():
    """Agreement on nothing would be agreement, too."""
    assert RUN(np.repeat(drawn(300, 240, 0)[..., None], 3, 2))[0].max() > 200


def test_three_channels_and_another_frame():
    spec = InputSpec(96, 84, 3, policy="ink")
    run = ReferenceRun(preparation_graph(spec))
    colours = np.stack([drawn(250, 180, 1), drawn(250, 180, 1, pen=90), drawn(250, 180, 1, pen=20)], axis=2)
    assert off(colours, run, spec) <= 1


@pytest.mark.parametrize("factor", [2, 3, 5, 7])
def test_blocks_are_averaged_as_pillow_does(factor):
    """Pillow multiplies by a reciprocal that is a little small; parts of blocks at the ends count fewer."""
    side = 512 * factor - 3
    image = np.random.default_rng(0).integers(0, 256, (40, side)).astype(np.uint8)

    taken = helper.make_tensor_value_info("pixels", onnx.TensorProto.FLOAT, [1, "h", "w"])
    space = Workspace(GraphBuilder(helper.make_model(helper.make_graph([], "g", [taken], []))))
    model = space.builder.model([_reduced(space.given("pixels")).name])
    found = ReferenceRun(model)(image[None].astype(np.float32))[0][0]
    np.testing.assert_array_equal(found, np.asarray(Image.fromarray(image).reduce(factor)))


def test_light_on_small_pages_has_as_many_blocks_as_on_large_ones():
    for size in (1, 2, 23, 24, 100, 512):
        edges = page._edges(size)
        assert len(edges) == 25 and edges[0] == 0 and edges[-1] == size


def test_light_of_pages_above_24_pixels_is_what_it_was():
    """Blocks, basis and solution as they were computed before they became constants of the graph."""
    rng = np.random.default_rng(0)
    for h, w in ((24, 24), (28, 28), (31, 392), (300, 240), (512, 512)):
        grey = rng.integers(0, 256, (2, h, w)).astype(np.float32)
        np.testing.assert_array_equal(page._lighting(grey), lighting_before(grey))


def lighting_before(grey: np.ndarray) -> np.ndarray:
    n, h, w = grey.shape
    rows, columns = (np.linspace(0, size, min(size, 24) + 1).astype(int)[:-1] for size in (h, w))
    bright = np.maximum.reduceat(np.maximum.reduceat(grey, rows, axis=1), columns, axis=2)
    y, x = page._powers(len(rows)), page._powers(len(columns))
    degrees = [(i, j) for i in range(4) for j in range(4 - i)]
    basis = np.stack([np.outer(y[:, i], x[:, j]).ravel() for i, j in degrees])
    solve = np.linalg.pinv(basis)
    values = bright.reshape(n, 1, -1)
    for _ in range(8):
        terms = values @ solve
        values = np.maximum(values, terms @ basis)
    square = np.zeros((n, 4, 4), np.float32)
    for term, (i, j) in enumerate(degrees):
        square[:, i, j] = terms[:, 0, term]
    return np.maximum(page._powers(h) @ square @ page._powers(w).T, 0).astype(np.float32)


def test_broken_light_would_be_seen(monkeypatch):
    monkeypatch.setattr(page, "_WIDE", 1 / 28)
    broken = ReferenceRun(preparation_graph(SPEC))
    monkeypatch.undo()
    assert max(off(drawn(200, 150, seed), broken) for seed in range(3)) > 1


def test_real_letters():
    data = Path(os.environ.get("HEADSTART_DATA", "nowhere")) / "greek"
    if not data.is_dir():
        pytest.skip("the letters are not here")
    paths = sorted(data.rglob("*.png"))[::4]
    assert len(paths) > 20
    assert max(off(decode(path)) for path in paths) <= 1
