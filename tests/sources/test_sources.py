"""Sources by name: pixels, random networks, model folders, and names that are wrong."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from headstart.data.dataset import Dataset
from headstart.data.readers.load import load
from headstart.errors import ModelError, SettingError, UnknownSourceError
from headstart.graph.layers import network_graph
from headstart.networks.engines.numpy_engine import initial_weights
from headstart.networks.specs import architecture, layer_shapes
from headstart.records import InputSpec, TrainSettings
from headstart.sources.features import extract
from headstart.sources.networks import fingerprint, native_input, spec_source
from headstart.sources.random_network import random_source
from headstart.sources.registry import KINDS, kind_named, kind_of, open_source, source_names
from headstart.strategies.places import Probe
from headstart.strategies.probe import learn_head
from headstart.strategies.scratch import learn_network

CNN = architecture("cnn", InputSpec(28, 28, 1), 10)


@pytest.fixture
def some(digits: Dataset) -> Dataset:
    return digits.subset(np.arange(120))


@pytest.fixture
def photos(tmp_path: Path) -> Dataset:
    for name in ("ant", "bee"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(2):
            Image.new("RGB", (30 + number, 40), (90 * number, 80, 70)).save(
                tmp_path / f"photos/{name}/{number}.png"
            )
    return load(tmp_path / "photos")


@pytest.mark.parametrize(
    "name", [name for name in source_names() if not name.endswith(("NAME", "PATH", "FOLDER"))]
)
def test_every_name_listed_can_be_had(name: str, some: Dataset) -> None:
    source = open_source(name, some)
    assert source.name == name and source.default_layer in source.layers and source.classes is None
    assert len(source.fingerprint) == 64
    if "photos" not in name:  # theirs cover how photos are fitted to the input, too
        assert source.fingerprint == fingerprint(source.graph)
    onnx.checker.check_model(onnx.ModelProto.FromString(source.graph), full_check=True)
    made = {name for node in onnx.ModelProto.FromString(source.graph).graph.node for name in node.output}
    assert set(source.layers) <= made
    rows = extract(some.subset([0, 1]), source)
    assert rows.shape == (2, int(np.prod(source.layers[source.default_layer])))


def test_random_is_random_by_seed_and_not_the_trained_one_s_start(some: Dataset) -> None:
    one, same, other = (open_source("random:cnn", some, seed) for seed in (0, 0, 1))
    assert one.graph == same.graph and one.fingerprint == same.fingerprint != other.fingerprint
    start = network_graph(CNN, initial_weights(CNN, 0)).SerializeToString(deterministic=True)
    assert one.graph != start, "a control that shares the trained network's first weights is none"


def test_a_source_of_a_network_reads_what_its_top_reads() -> None:
    source = spec_source("x", CNN, network_graph(CNN, initial_weights(CNN, 0)))
    assert (
        source.default_layer == "hidden1"
        and dict(source.layers) == layer_shapes(CNN)
        and source.input == CNN.input
    )


def test_the_fingerprint_covers_weights_layers_and_input() -> None:
    prints = {random_source(CNN, seed).fingerprint for seed in (0, 1)}
    prints |= {
        random_source(architecture(name, InputSpec(28, 28, 1), 10), 0).fingerprint for name in ("mlp", "cnn")
    }
    prints.add(random_source(architecture("cnn", InputSpec(28, 28, 1, (0.5,), (0.5,)), 10), 0).fingerprint)
    assert len(prints) == 4


def test_native_input_is_the_images_own_or_small_colour(some: Dataset, photos: Dataset) -> None:
    assert native_input(some) == InputSpec(8, 8, 1)
    assert native_input(photos).shape == (64, 64, 3)
    assert extract(photos, open_source("pixels", photos)).shape == (4, 64 * 64 * 3)


@pytest.fixture(scope="module")
def folders(digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    home, some = tmp_path_factory.mktemp("models"), digits.subset(np.arange(120))
    learnt = learn_network(some, network="mlp", engine="scratch", settings=TrainSettings(epochs=1))
    learnt.model.save(home / "network")
    learn_head(open_source("pixels", some), some, Probe(head="ridge")).model.save(home / "probe")
    return {"network": home / "network", "probe": home / "probe"}


def test_a_model_folder_is_a_source(folders: dict[str, Path], some: Dataset) -> None:
    source = open_source(str(folders["network"]), some)
    assert source.name == str(folders["network"]) and source.default_layer == "hidden2"
    assert source.classes == tuple("0123456789")
    assert extract(some, source).shape == (120, 64)
    probe = open_source(str(folders["probe"]), some)
    assert probe.default_layer == "values" and extract(some, probe).shape == (120, 64)


def test_a_model_s_network_can_be_drawn_afresh(folders: dict[str, Path], some: Dataset) -> None:
    trained = open_source(str(folders["network"]), some)
    fresh = open_source(f"random:{folders['network']}", some)
    assert fresh.name == "random:mlp" and fresh.layers == trained.layers
    assert not np.array_equal(extract(some, fresh), extract(some, trained))


# of kinds with many names; the others are called as their prefix
EXAMPLES = {
    "timm:": "timm:test_resnet",
    "timm:local-dir:": "timm:local-dir:{timm}",
    "random:": "random:cnn",
    "random:timm:": "random:timm:test_resnet",
    "": "{network}",
}
DOWNLOADED = "timm:"  # its weights are not here: `test_pretrained` opens it


@pytest.fixture(scope="module")
def timm_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny network as timm saves one."""
    timm, torch = pytest.importorskip("timm"), pytest.importorskip("torch")
    from safetensors.torch import save_file

    torch.manual_seed(5)
    folder = tmp_path_factory.mktemp("timm")
    save_file(timm.create_model("test_resnet", num_classes=7).state_dict(), folder / "model.safetensors")
    about = {"input_size": [3, 64, 64], "num_classes": 7, "license": "mit", "interpolation": "bilinear"}
    config = {"architecture": "test_resnet", "num_classes": 7, "pretrained_cfg": about}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_every_kind_has_an_example_and_a_line_of_help() -> None:
    assert set(EXAMPLES) <= set(KINDS)
    assert all(kind.names and all(kind.names.values()) for kind in KINDS.values())


@pytest.mark.parametrize("prefix", [one for one in KINDS if one != DOWNLOADED])
def test_contract_of_source_kinds(
    prefix: str, some: Dataset, folders: dict[str, Path], request: pytest.FixtureRequest
) -> None:
    pytest.importorskip("torch")
    kind, few = KINDS[prefix], some.subset([0, 1])
    folder = request.getfixturevalue("timm_folder") if "timm" in prefix else None
    name = EXAMPLES.get(prefix, prefix).format(timm=folder, network=folders["network"])
    assert kind_named(name) is kind
    source = open_source(name, some, 3)
    assert kind_of(source) is kind and source.default_layer in source.layers
    assert source.fingerprint == open_source(name, some, 3).fingerprint
    assert extract(few, source).shape == (2, int(np.prod(source.layers[source.default_layer])))
    if not kind.takes_size:
        with pytest.raises(SettingError, match="expected a size for photos, photos-large, timm:NAME"):
            open_source(name, some, size_px=32)
    layer = source.default_layer
    body = None if kind.body is None else kind.body(source, layer)
    if body is not None:
        trained = body.finished(body.module.eval())
        assert trained.name == f"{source.name}, fine-tuned" and trained.layers[layer] == source.layers[layer]
        assert np.allclose(extract(few, trained, layer=layer), extract(few, source, layer=layer), atol=1e-3)
    if kind.redraw is not None:
        drawn = [kind.redraw(source, some, seed, source.notes["size_px"]) for seed in (0, 1)]
        assert drawn[0].layers == source.layers
        assert len({one.fingerprint for one in (source, *drawn)}) == 3


def test_a_source_without_a_network_has_no_body(folders: dict[str, Path], some: Dataset) -> None:
    source = open_source(str(folders["probe"]), some)
    make = kind_of(source).body
    assert make is not None and make(source, "values") is None


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "pixel",
            "source 'pixel' is unknown, expected a model folder or a registered name, nearest are pix",
        ),
        ("random:cnm", "nearest are random:cnn"),
        ("random:", "source 'random:' is unknown"),
        ("random:pixels", "source 'random:pixels' is unknown"),
        ("no/such/folder", "list all with: headstart sources"),
        ("", "source '' is unknown"),
    ],
)
def test_an_unknown_source_is_one_sentence(name: str, said: str, some: Dataset) -> None:
    with pytest.raises(UnknownSourceError) as caught:
        open_source(name, some)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_a_head_without_a_network_cannot_be_drawn_afresh(folders: dict[str, Path], some: Dataset) -> None:
    with pytest.raises(UnknownSourceError, match=r"source 'random:.*probe' is unknown"):
        open_source(f"random:{folders['probe']}", some)


def test_a_folder_that_is_no_model_is_a_model_error(tmp_path: Path, some: Dataset) -> None:
    for name in (str(tmp_path), f"random:{tmp_path}"):
        with pytest.raises(ModelError, match=r"holds no manifest\.json"):
            open_source(name, some)


@pytest.mark.parametrize("size_px", [0, -3, 100_000])
def test_a_size_that_no_memory_holds_is_one_sentence(size_px: int) -> None:
    with pytest.raises(SettingError, match=r"size is -?\d+, expected 1 to 4,096 px"):
        open_source("random:photos", None, size_px=size_px)
