"""Expressions over a graph compute what NumPy computes of the same expression."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper

from headstart.graph.build import GraphBuilder
from headstart.graph.preparation.tensors import Tensor, Workspace, concatenated, maximum, minimum, where
from headstart.graph.run import ReferenceRun

VALUES = np.random.default_rng(0).normal(0, 3, (4, 5)).astype(np.float32)


def space(**settings) -> Workspace:
    taken = helper.make_tensor_value_info("values", onnx.TensorProto.FLOAT, ["h", "w"])
    return Workspace(GraphBuilder(helper.make_model(helper.make_graph([], "g", [taken], []))), **settings)


def computed(expression) -> np.ndarray:
    work = space()
    made: Tensor = expression(work.given("values"))
    return ReferenceRun(work.builder.model([made.name]))(VALUES)[0]


BOTH = {
    "arithmetic": lambda x: (1 - x * 2 + 3) / (x * x + 4) - (-x) / 7,
    "reflected": lambda x: 2 / (abs(x) + 1) + 3 * x,
    "products": lambda x: x @ x.transpose(1, 0),
    "sums": lambda x: x.sum(1) + x.max(1) - x.mean(1),
    "shapes": lambda x: x.reshape(2, -1),
}


@pytest.mark.parametrize("name", BOTH)
def test_the_same_expression_in_numpy(name):
    np.testing.assert_allclose(computed(BOTH[name]), BOTH[name](VALUES), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("ours", "numpys"),
    [
        (lambda x: (x < 0) + (x <= 0) + (x > 1) + (x >= 1), (VALUES <= 0) * 2.0 + (VALUES >= 1) * 2.0),
        (lambda x: where(x > 0, x, -1), np.where(VALUES > 0, VALUES, -1)),
        (lambda x: maximum(minimum(x, 2), -2), VALUES.clip(-2, 2)),
        (lambda x: x.clip(-1, 1).floor(), np.floor(VALUES.clip(-1, 1))),
        (lambda x: (x * 2).rounded() + x.squared().sqrt(), np.rint(VALUES * 2) + abs(VALUES)),
        (lambda x: x.slice(1, 1, x.size(1) - 1), VALUES[:, 1:-1]),
        (lambda x: x.at(0, -1), VALUES[-1]),
        (lambda x: x.take(x.space.arange(3), 0), VALUES[:3]),
        (lambda x: x.space.arange(x.size(0)).column() * x, np.arange(4)[:, None] * VALUES),
        (lambda x: concatenated(x, x * 2, axis=0), np.concatenate([VALUES, VALUES * 2])),
        (lambda x: x.reshape(x.size(0) * x.size(1)), VALUES.ravel()),
        (lambda x: (x.cast("wide") / 3 * 3 - x.cast("wide")).cast("float"), VALUES * 0),
    ],
)
def test_what_reads_otherwise(ours, numpys):
    np.testing.assert_allclose(computed(ours), numpys, rtol=1e-5, atol=1e-6)


def test_halves_are_rounded_to_even_and_wide_numbers_stay_wide():
    work = space()
    third = work.given("values").cast("wide") * 0 + 1 / 3
    assert third.wide and (1 - third).wide and maximum(third, 0).wide and where(third > 0, third, 0).wide
    assert not (third > 0).wide and not third.cast("float").wide
    assert computed(lambda x: ((x.cast("wide") * 0 + 1 / 3) - 1 / 3).cast("float")).max() == 0
    assert computed(lambda x: ((x * 0 + 1 / 3).cast("wide") - 1 / 3).cast("float")).max() > 1e-9
    assert computed(lambda x: (x * 0 + 2.5).rounded())[0, 0] == 2


def test_equal_constants_are_stored_once_and_names_do_not_meet_a_networks():
    work = space(prefix="p")
    one = work.constant(np.arange(3.0))
    assert work.constant(np.arange(3.0)).name == one.name != work.constant(np.arange(4.0)).name
    assert work.number(1).name == work.number(1.0).name != work.number(1, wide=True).name
    assert {name.partition(".")[0] for name in (one.name, work.number(1).name)} == {"p"}
