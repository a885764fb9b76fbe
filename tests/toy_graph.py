"""A small model graph, for tests of graphs and exports."""

from __future__ import annotations

import numpy as np

from headstart.graph import build, layers
from headstart.records import InputSpec


def toy(spec: InputSpec, *, novelty: bool = False, n_classes: int = 3) -> bytes:
    """A model: softmax of a fixed mix of its pixels, and the mean of them as novelty."""
    builder = build.GraphBuilder(input_spec=spec)
    flat = builder.add("Flatten", layers.normalise(builder, spec), axis=1)
    weights = np.random.default_rng(3).normal(0, 0.05, (int(np.prod(spec.shape)), n_classes))
    mixed = builder.add("MatMul", flat, builder.constant("mix", weights.astype(np.float32)))
    builder.add("Softmax", mixed, name=build.PROBABILITIES, axis=1)
    if novelty:
        axes = builder.constant("axes", np.array([1], np.int64))
        mean = builder.add("ReduceMean", flat, axes, keepdims=0)
        twice = builder.constant("two", np.array([2.0], np.float32))
        builder.add("Mul", mean, twice, name=build.NOVELTY)
    outputs = [build.PROBABILITIES, *([build.NOVELTY] if novelty else [])]
    return builder.model(outputs).SerializeToString()
