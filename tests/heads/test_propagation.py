"""Label propagation: exact left-out scores, the same function in a graph, and what it needs."""

from __future__ import annotations

import numpy as np
import pytest

from headstart.graph import run as runtime
from headstart.graph.build import INPUT, GraphBuilder
from headstart.heads import propagation
from headstart.heads.propagation import PropagationHead, left_out
from headstart.heads.training import Training
from headstart.records import Array, InputSpec

CLASSES = ("ant", "bee", "cat")


def blobs(n_each: int, seed: int, width: int = 12) -> tuple[Array, np.ndarray]:
    """Three long, thin clouds; ``width`` features."""
    rng = np.random.default_rng(seed)
    codes = np.repeat(np.arange(3), n_each)
    rows = rng.normal(0, 0.3, (len(codes), width))
    rows[np.arange(len(codes)), codes] += 4
    rows[:, 3 + codes[0]] += rng.uniform(0, 4, len(codes))
    return rows.astype(np.float32), codes


def training_of(rows: Array, codes: np.ndarray, clusters: np.ndarray | None = None) -> Training:
    n = len(rows)
    return Training(rows, codes, np.ones(n, np.float32), np.arange(n), 0, clusters)


def fitted(n_each: int = 4, n_others: int = 60) -> tuple[PropagationHead, Training]:
    training = training_of(*blobs(n_each, 1))
    head = PropagationHead(blobs(n_others, 2)[0])
    head.learn(training, CLASSES)
    return head, training


@pytest.mark.parametrize("clusters", [None, np.array([0, 0, 1, 2, 3, 3, 4, 5, 6, 6, 7, 8])])
def test_left_out_scores_are_those_of_a_fit_without_the_cluster(clusters: np.ndarray | None) -> None:
    training = training_of(*blobs(4, 1), clusters)
    head = PropagationHead(blobs(60, 2)[0])
    held = head.held_out(training)
    assert held is not None and held.scores.shape == (1, 12, 3)
    graph, own = head._graph(training), training.cluster_codes
    for place in range(12):
        others = own != own[place]
        known = np.zeros((len(head.rows_), 3), np.float32)
        known[np.flatnonzero(others), training.codes[others]] = 1
        shares = propagation._shares(propagation._propagated(graph, known))
        near, weights = head._nearest(head.rows_[place : place + 1], np.flatnonzero(~others))
        assert np.allclose(weights[0] @ shares[near[0]], held.scores[0, place], atol=1e-4)


def test_the_graph_computes_what_numpy_does() -> None:
    head, _ = fitted()
    rows = blobs(20, 3)[0]
    rows[0] = 0  # an image without any feature
    builder = GraphBuilder(input_spec=InputSpec(1, rows.shape[1], 1))
    features = builder.add("Flatten", builder.add("Cast", INPUT, to=1), axis=1)
    output = builder.add("Identity", head.append(builder, features), name="out")
    small = np.clip(np.rint(rows * 20), 0, 255).astype(np.uint8)
    for one in ("openvino", "onnxruntime"):
        compiled = runtime.compile_graph(builder.model([output]), runtime=one, precision="fp32")
        found = compiled.run([small.reshape(len(small), 1, -1, 1)], len(small))
        assert np.allclose(found, head.probabilities(small.astype(np.float32)), atol=1e-5)
        assert np.allclose(found.sum(axis=1), 1, atol=1e-5)


def test_a_label_reaches_what_is_connected_to_it() -> None:
    """Two arcs with one label each; the far end of the first arc is nearer to the label of the second."""
    angle = np.linspace(0, np.pi / 2, 100)[:, None]
    first, second, far, side = np.eye(4)
    arcs = np.concatenate(
        [
            np.cos(angle) * first + np.sin(angle) * far,
            np.cos(angle) * second + np.sin(angle) * (0.8 * far + 0.6 * side),
        ]
    )
    rows, codes = arcs.astype(np.float32), np.repeat([0, 1], 100)
    labelled = np.array([0, 130])
    rest = np.setdiff1d(np.arange(200), labelled)
    head = PropagationHead(rows[rest])
    head.learn(training_of(rows[labelled], codes[labelled]), ("up", "down"))
    right = head.probabilities(rows[rest]).argmax(axis=1) == codes[rest]
    nearest = np.linalg.norm(rows[rest][:, None] - rows[labelled], axis=2).argmin(axis=1) == codes[rest]
    assert right.mean() > 0.97
    assert nearest.mean() < 0.9


def test_a_class_of_one_cluster_cannot_be_left_out() -> None:
    rows, codes = blobs(1, 1)
    assert PropagationHead(blobs(60, 2)[0]).held_out(training_of(rows, codes)) is None


def test_of_many_images_a_part_is_left_out_in_whole_clusters() -> None:
    rows, codes = blobs(200, 1)
    clusters = np.repeat(np.arange(300), 2)
    judged = left_out(training_of(rows, codes, clusters))
    assert len(judged) == 250 and len(np.unique(clusters[judged])) == 125


def test_augmented_copies_are_no_images_of_their_own() -> None:
    rows, codes = blobs(4, 1)
    twice = Training(
        np.concatenate([rows, rows + 5]),
        np.tile(codes, 2),
        np.ones(24, np.float32),
        np.tile(np.arange(12), 2),
        0,
    )
    one, other = PropagationHead(blobs(60, 2)[0]), PropagationHead(blobs(60, 2)[0])
    one.learn(training_of(rows, codes), CLASSES)
    other.learn(twice, CLASSES)
    assert np.array_equal(one.shares_, other.shares_) and len(one.rows_) == 12 + 180


def test_fewer_images_than_neighbours_are_enough() -> None:
    rows, codes = blobs(1, 1)
    head = PropagationHead(blobs(1, 2)[0])
    head.learn(training_of(rows, codes), CLASSES)
    assert head.chosen_["neighbours"] == 5 and np.isfinite(head.probabilities(rows)).all()
