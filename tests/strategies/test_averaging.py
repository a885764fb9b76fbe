"""The mean of several heads: selected, predicted, saved, and told apart from one head."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from headstart.data.dataset import Dataset
from headstart.errors import ModelError
from headstart.graph.build import INPUT, GraphBuilder, PrefixedBuilder
from headstart.models.export import export_model
from headstart.models.manifest import read_manifest, write_manifest
from headstart.models.model import open_model
from headstart.records import InputSpec
from headstart.sources.features import PLAIN, extract
from headstart.sources.registry import open_source
from headstart.strategies.fits import Chooser, Reader, chosen_probe
from headstart.strategies.places import CHOSEN, Probe, Reading
from headstart.strategies.probe import learn_head
from headstart.strategies.provenance import about_head
from headstart.strategies.result import LearnedModel
from headstart.strategies.select import AVERAGED_FROM


@pytest.fixture(scope="module")
def pool(digits: Dataset) -> Dataset:
    return digits.subset(np.arange(200))


@pytest.fixture(scope="module")
def learned(pool: Dataset) -> LearnedModel:
    return learn_head(open_source("random:cnn", pool), pool)


def test_three_heads_are_averaged_and_each_is_noted(learned: LearnedModel, pool: Dataset) -> None:
    assert learned.choice is not None
    heads = learned.model.manifest.head["heads"]
    assert [(one["name"], one["tap"], one["pooling"]) for one in heads] == [
        (one.head, one.layer, one.pooling) for one in learned.choice.trials[:3]
    ]
    assert len({tuple(one[key] for key in ("name", "tap", "pooling")) for one in heads}) == 3
    said = about_head(learned.model.manifest.head)
    assert said.startswith("mean of 3 heads: ") and all(one["tap"] in said for one in heads)
    assert learned.choice.sentence.startswith("The mean of ")


def test_the_graph_computes_the_mean_of_its_heads(learned: LearnedModel, pool: Dataset) -> None:
    source, seen = open_source("random:cnn", pool), np.zeros((len(pool), 10))
    for one in learned.model.manifest.head["heads"]:
        alone = learn_head(source, pool, Probe(one["tap"], one["pooling"], one["name"]))
        assert "heads" not in alone.model.manifest.head
        seen += alone.model.probabilities(pool) / 3
    assert np.allclose(learned.model.probabilities(pool), seen, atol=1e-5)


def test_a_study_predicts_what_the_saved_model_predicts(learned: LearnedModel, pool: Dataset) -> None:
    source = open_source("random:cnn", pool)
    reader = Reader(source, pool, pool, replace(PLAIN, precision="fp32"))
    everyone = np.arange(len(pool))
    probs = chosen_probe(reader, CHOSEN, Chooser(reader, CHOSEN, 1_500))(everyone, everyone, 0)
    assert np.allclose(probs, learned.model.probabilities(pool), atol=1e-5)


def test_it_is_saved_exported_and_read_again(learned: LearnedModel, pool: Dataset, tmp_path: Path) -> None:
    learned.model.save(tmp_path / "model")
    again = open_model(tmp_path / "model")
    assert again.manifest.head == learned.model.manifest.head
    assert np.array_equal(again.probabilities(pool), learned.model.probabilities(pool))
    export_model(again, "onnx", tmp_path / "exported")
    card = (tmp_path / "model" / "card.md").read_text(encoding="utf-8")
    assert "- Head: mean of 3 heads\n  - " in card
    layer = again.manifest.default_layer
    assert len(extract(pool.subset(np.arange(5)), again.source(), layer=layer)) == 5, "it can be a source"


def test_few_images_have_one_head(digits: Dataset) -> None:
    few = digits.subset(np.concatenate([np.flatnonzero(digits.codes() == code)[:3] for code in range(10)]))
    assert len(few) < AVERAGED_FROM
    found = learn_head(open_source("random:cnn", few), few)
    assert "heads" not in found.model.manifest.head and found.choice is not None
    assert len(found.choice.selected) == 1 and "The mean" not in found.choice.sentence


def test_images_of_few_groups_count_as_few(pool: Dataset) -> None:
    """200 images by two writers each class are not 200 independent ones."""
    writers = np.array([str(number % 2) for number in range(len(pool))])
    found = learn_head(open_source("random:cnn", pool), replace(pool, groups=writers))
    assert "heads" not in found.model.manifest.head


def test_what_is_given_is_one_head(pool: Dataset) -> None:
    source = open_source("random:cnn", pool)
    found = learn_head(source, pool, readings=[Reading(("conv1", "avg"), "ridge")])
    assert found.model.manifest.head["name"] == "ridge" and found.model.manifest.source["tap"] == "conv1"


@pytest.mark.parametrize(
    "fault", [{"heads": []}, {"heads": "x"}, {"heads": [{"name": "ridge", "chosen": {}}]}]
)
def test_a_malformed_list_of_heads_is_refused(learned: LearnedModel, fault: dict[str, object]) -> None:
    manifest = learned.model.manifest
    text = write_manifest(replace(manifest, head={**manifest.head, **fault}))
    with pytest.raises(ModelError, match="missing or malformed field"):
        read_manifest(text, "m")


def test_a_prefix_keeps_the_names_of_two_heads_apart() -> None:
    builder = GraphBuilder(input_spec=InputSpec(2, 2, 1))
    rows = builder.add("Flatten", builder.add("Cast", INPUT, to=1), axis=1)
    names = []
    for one in (builder, PrefixedBuilder(builder, "head.2.")):
        factor = one.constant("factor", np.array([float(len(names) + 2)], np.float32))
        names.append(one.add("Mul", rows, factor, name="scaled"))
    assert names == ["scaled", "head.2.scaled"]
    kept = {tensor.name for tensor in builder.model(names).graph.initializer}
    assert kept == {"factor", "head.2.factor"}
