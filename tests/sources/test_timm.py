"""Networks of timm as sources: graphs against torch, weights untouched, kept graphs, what is refused."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper
from PIL import Image

from headstart.data import from_arrays
from headstart.data.dataset import Dataset
from headstart.data.images.prepare import prepare
from headstart.data.readers.load import load
from headstart.errors import (
    HeadstartError,
    MissingDataError,
    MissingExtraError,
    SettingError,
    SourceError,
    UnknownSourceError,
)
from headstart.graph.build import GraphBuilder
from headstart.graph.run import compile_graph
from headstart.graph.wrap import count_flops, flops_of
from headstart.records import Array, InputSpec, Source
from headstart.sources.image_network import ExportedNetwork, ImageNetwork, Licence, network_source
from headstart.sources.registry import find_sources, open_source
from headstart.sources.timm.store import find_network, pretrained_names
from headstart.system.drafts import CacheWarning

torch = pytest.importorskip("torch", reason="needs torch")
timm = pytest.importorskip("timm", reason="needs timm")

from headstart.sources.timm import export as timm_source  # noqa: E402 - it imports both
from headstart.sources.timm.export import checksum, export_network  # noqa: E402

HOME = os.environ.get("HEADSTART_DATA")
REAL = Path(HOME).parent / "weights" / "mobilenetv2_035.keras_in1k_notop" if HOME else Path("nowhere")
LOCAL = "timm:local-dir:"


def drawn(name: str, seed: int, **options: Any) -> Any:
    """A network as if trained: its statistics are not those it starts with."""
    torch.manual_seed(seed)
    network = timm.create_model(name, **options).eval()
    for part in network.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.running_mean.normal_(0, 0.2)
            part.running_var.uniform_(0.5, 2)
            torch.nn.init.uniform_(part.weight, 0.5, 1.5)
    return network


def saved(network: Any, folder: Path, **config: Any) -> Path:
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    save_file(network.state_dict(), folder / "model.safetensors")
    config = {"architecture": "test_resnet", "num_classes": 7} | config
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of seven classes as timm saves one."""
    scaling = {"input_size": [3, 64, 64], "interpolation": "bilinear", "crop_pct": 0.9, "license": "mit"}
    about = {**scaling, "mean": [0.4, 0.5, 0.6], "std": [0.3, 0.2, 0.1], "num_classes": 7}
    network = drawn("test_resnet", 1, num_classes=7)
    return saved(network, tmp_path_factory.mktemp("weights") / "mine", pretrained_cfg=about)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("graphs")


@pytest.fixture
def warm(store: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What was exported for one test is there for the next."""
    monkeypatch.setenv("HEADSTART_CACHE", str(store))
    return store


def opened(name: str, folder: Path, *args: Any, **options: Any) -> Source:
    names = {"mine": f"{LOCAL}{folder}", "real": f"{LOCAL}{REAL}"}
    return open_source(names.get(name, f"random:timm:{name}"), *args, **options)


def original(name: str, folder: Path) -> Any:
    """The same network in torch, by timm alone."""
    if name in ("mine", "real"):
        return timm.create_model(f"local-dir:{folder if name == 'mine' else REAL}", pretrained=True).eval()
    torch.manual_seed(0)
    return timm.create_model(name).eval()


def computed(network: Any, source: Source, pixels: Any) -> dict[str, Array]:
    """Every layer by torch."""
    with torch.inference_mode():
        maps = network.forward_features(pixels)
        if "cls_token" in dict(network.named_parameters()):
            options = {"norm": True, "return_prefix_tokens": True, "intermediates_only": True}
            pairs = network.forward_intermediates(pixels, output_fmt="NCHW", **options)
            values = {f"cls{number}": tokens[:, 0] for number, (_, tokens) in enumerate(pairs, 1)}
            stages = [maps for maps, _ in pairs]
        else:
            stages = network.forward_intermediates(pixels, intermediates_only=True, output_fmt="NCHW")
            values = {}
        values |= {f"stage{number}": one for number, one in enumerate(stages, 1)}
        values |= {"features": maps, "embedding": network.forward_head(maps, pre_logits=True)}
        values |= {"logits": network(pixels)}
    return {layer: values[layer].numpy() for layer in source.layers}


def scaled(images: NDArray[np.uint8], spec: InputSpec) -> Any:
    colour = np.repeat(images, 3 // images.shape[3], axis=3)
    values = ((colour / 255.0 - spec.mean) / spec.std).astype(np.float32)
    return torch.tensor(values.transpose(0, 3, 1, 2))


def given(source: Source, images: NDArray[np.uint8]) -> dict[str, Array]:
    """Every layer by the graph."""
    ready = compile_graph(onnx.ModelProto.FromString(source.graph), runtime="onnxruntime", precision="fp32")
    return dict(zip(source.layers, next(ready.stream([images])), strict=True))


def assert_equal(got: dict[str, Array], wanted: dict[str, Array]) -> None:
    assert list(got) == list(wanted)
    for layer, values in wanted.items():
        assert got[layer].shape == values.shape, layer
        assert np.abs(got[layer] - values).max() <= 1e-4 * np.abs(values).max(), layer
        assert values.std() > 0, f"{layer} tells nothing"


NAMES = [
    "mine",
    "test_efficientnet",
    "test_vit",
    pytest.param("real", marks=pytest.mark.skipif(not REAL.is_dir(), reason="needs weights beside the data")),
]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_tap_is_what_torch_computes(name: str, folder: Path, warm: Path) -> None:
    source, network = opened(name, folder), original(name, folder)
    images = np.random.default_rng(0).integers(0, 256, (3, *source.input.shape), dtype=np.uint8)
    assert_equal(given(source, images), computed(network, source, scaled(images, source.input)))
    assert given(source, images[:1])["embedding"].shape[0] == 1, "any number of images"
    onnx.checker.check_model(onnx.ModelProto.FromString(source.graph), full_check=True)


@pytest.fixture
def photos(tmp_path: Path) -> Dataset:
    rng = np.random.default_rng(0)
    for number, name in enumerate(("ant", "bee")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for size in ((70, 90), (200, 130)):
            pixels = rng.integers(0, 256, (*size, 3), dtype=np.uint8) // (number + 1)
            Image.fromarray(pixels).save(tmp_path / f"photos/{name}/{size[0]}.png")
    return load(tmp_path / "photos")


def test_photos_are_cropped_as_the_makers_did(photos: Dataset, folder: Path, warm: Path) -> None:
    source, network = opened("mine", folder, photos), original("mine", folder)
    scaling = (0.4, 0.5, 0.6), (0.3, 0.2, 0.1)
    assert source.input == InputSpec(64, 64, 3, *scaling, "crop", "bilinear", 0.9)
    images = prepare(photos, source.input)
    assert_equal(given(source, images), computed(network, source, scaled(images, source.input)))


def grey(side: int) -> Dataset:
    pixels = np.random.default_rng(0).integers(0, 256, (4, side, side), dtype=np.uint8)
    return from_arrays(pixels, ["a", "b", "a", "b"])


def test_small_grey_images_are_enlarged_in_the_graph(folder: Path, warm: Path) -> None:
    dataset = grey(28)
    source, network = opened("mine", folder, dataset), original("mine", folder)
    assert source.input.shape == (28, 28, 1) and source.input.policy == "squish"
    images = prepare(dataset, source.input)
    pixels = scaled(images, source.input)
    pixels = torch.nn.functional.interpolate(pixels, (64, 64), mode="bilinear", align_corners=False)
    assert_equal(given(source, images), computed(network, source, pixels))


def test_images_larger_than_the_network_s_are_prepared_to_it(folder: Path, warm: Path) -> None:
    assert opened("mine", folder, grey(64)).input.shape == (64, 64, 1)
    assert opened("mine", folder, grey(65)).input.shape == (64, 64, 3)


def test_a_source_says_what_it_is(folder: Path, warm: Path) -> None:
    source, network = opened("mine", folder), original("mine", folder)
    assert source.name == f"{LOCAL}{folder}" and source.default_layer == "embedding"
    assert source.classes == tuple("0123456") and source.precision == "fp32"
    assert source.notes["n_parameters"] == sum(one.numel() for one in network.parameters())
    assert source.notes["licence"] == "mit" and source.notes["licence from"] == "config.json of the folder"
    assert source.notes["checksum"] == checksum(network)
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        network(torch.zeros(1, 3, 64, 64))
    assert source.notes["gflops"] == pytest.approx(counter.get_total_flops() / 1e9, rel=1e-6)
    fingerprints = {opened("mine", folder, dataset).fingerprint for dataset in (None, grey(28), grey(27))}
    assert len(fingerprints) == 3


def test_operations_of_a_transformer_are_torch_s(folder: Path, warm: Path) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        original("test_vit", folder)(torch.zeros(1, 3, 160, 160))
    source = opened("test_vit", folder)
    assert source.notes["gflops"] == pytest.approx(counter.get_total_flops() / 1e9, rel=1e-6)


TRANSFORMERS = {
    "deit_tiny_distilled_patch16_224": 32,  # two tokens before the patches
    "eva02_tiny_patch14_224": 28,
    "vit_small_patch14_reg4_dinov2": 42,  # registers between the class token and the patches
}


@pytest.mark.slow
@pytest.mark.parametrize("name", TRANSFORMERS)
def test_class_tokens_and_maps_are_timm_s_at_a_size_of_one_s_own(name: str, folder: Path, warm: Path) -> None:
    side = TRANSFORMERS[name]
    source = opened(name, folder, size_px=side)
    torch.manual_seed(0)
    network = timm.create_model(name).eval()
    network.set_input_size(img_size=(side, side))
    images = np.random.default_rng(0).integers(0, 256, (2, side, side, 3), dtype=np.uint8)
    pixels = scaled(images, source.input)
    pairs = network.forward_intermediates(
        pixels, output_fmt="NCHW", norm=True, return_prefix_tokens=True, intermediates_only=True
    )
    wanted = {f"stage{number}": maps for number, (maps, _) in enumerate(pairs, 1)}
    wanted |= {f"cls{number}": tokens[:, 0] for number, (_, tokens) in enumerate(pairs, 1)}
    got = given(source, images)
    assert {one for one in got if one.startswith("cls")} == {"cls9", "cls10", "cls11", "cls12"}
    assert {f"stage{number}" for number in range(1, 13)} <= set(got)
    for layer, values in got.items():
        if layer in wanted:
            value = wanted[layer].detach().numpy()
            assert values.shape == value.shape and np.abs(values - value).max() <= 1e-4 * np.abs(value).max()
    both = "cls9+cls10+cls11+cls12"
    assert {(both, "flat"), (f"{both}+stage12", "avg"), ("cls12+stage12", "avg")} <= set(source.candidates)


def test_a_network_that_cannot_be_traced_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    """The tracer prints the whole graph where it fails, into the results of a command."""
    network = timm.create_model("test_vit").eval()  # its embedding is interpolated in the graph
    assert timm_source.describe_network(network, "test_vit", 64).size == (64, 64)
    assert capfd.readouterr().out == ""


def test_a_side_that_patches_do_not_fill_is_refused(folder: Path, warm: Path) -> None:
    with pytest.raises(SourceError, match=r"a multiple of its 14 px patches; take 28 or 42$"):
        opened("vit_small_patch14_reg4_dinov2", folder, size_px=30)


def test_a_smaller_input_costs_what_is_estimated() -> None:
    """Attention's products grow with the square of the number of pixels."""
    options = {"img_size": 64, "patch_size": 4, "depth": 2, "embed_dim": 32, "num_heads": 2, "num_classes": 0}
    network = timm.create_model("vit_tiny_patch16_224", **options).eval()
    large = count_flops(timm_source.describe_network(network, "small", 64).graph)
    network.set_input_size(img_size=(32, 32))
    small = count_flops(timm_source.describe_network(network, "small", 32).graph)
    n, width, depth = 64 + 1, 32, 2
    products = n * 3 * width**2 + n * width**2 + 2 * n * 4 * width**2
    assert small.pairs == 2 * depth * 2 * n * n * width
    assert small.weights == 2 * (depth * products + (n - 1) * 3 * 4**2 * width)
    assert large.at(1 / 4) == pytest.approx(small.total, rel=0.03)  # the class token is one of many


SMALL_NETWORKS: dict[str, tuple[int, dict[str, Any]]] = {
    "test_efficientnet": (64, {"pad_type": "same"}),
    "tf_mobilenetv3_small_minimal_100": (32, {}),  # its head is computed twice, for embedding and logits
    "swin_tiny_patch4_window7_224": (32, {"img_size": 32, "window_size": 4, "depths": (2, 1)}),
    "vit_small_patch16_dinov3": (32, {"depth": 1}),
}


@pytest.mark.parametrize("name", SMALL_NETWORKS)
def test_operations_are_those_that_torch_counts(name: str) -> None:
    """Padding, reshapes and window sizes computed in the graph hide shapes from shape inference."""
    from torch.utils.flop_counter import FlopCounterMode

    side, options = SMALL_NETWORKS[name]
    network = timm.create_model(name, **options).eval()
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        network(torch.zeros(1, 3, side, side))
    counted = flops_of(timm_source.describe_network(network, name, side).graph)
    assert counted == pytest.approx(counter.get_total_flops(), rel=1e-6)


def test_a_policy_of_one_s_own_changes_only_the_preparation(folder: Path, warm: Path) -> None:
    plain, squished = (opened("mine", folder, policy=policy) for policy in (None, "squish"))
    assert replace(squished, input=replace(squished.input, policy="crop")) == plain != squished


def test_the_names_of_imagenet_s_classes(folder: Path, warm: Path) -> None:
    classes = opened("test_vit", folder).classes
    assert classes is not None and len(classes) == 1000 and classes[0].startswith("tench")


# frozen


@pytest.mark.slow
def test_export_leaves_weights_and_statistics_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    network = drawn("test_resnet", 2)
    before = checksum(network)
    monkeypatch.setattr(timm_source, "create_network", lambda *_: network)
    exported = export_network("test_resnet", size_px=64)
    assert exported.checksum == before == checksum(network) and not network.training
    assert not any(one.requires_grad for one in network.parameters())


def test_the_checksum_notices_what_training_mode_does() -> None:
    network = drawn("test_resnet", 3)
    before = checksum(network)
    with torch.no_grad():
        network(torch.rand(2, 3, 64, 64))
        assert checksum(network) == before
        network.train()(torch.rand(2, 3, 64, 64))
    assert checksum(network) != before
    other = drawn("test_resnet", 3)
    assert checksum(other) == before
    with torch.no_grad():
        next(other.parameters())[0, 0, 0, 0] += 1e-6
    assert checksum(other) != before


def test_a_network_that_changes_while_it_is_exported_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(network: Any, *_: Any) -> tuple[None, dict[str, tuple[int, ...]]]:
        network.train()(torch.rand(2, 3, 64, 64))
        return None, {}

    monkeypatch.setattr(timm_source, "_graph", careless)
    with pytest.raises(SourceError, match="'timm:test_resnet' changed while it was exported"):
        export_network("test_resnet", pretrained=False)


# kept graphs

FRESH = """
import hashlib, sys
from headstart.data import from_arrays
from headstart.sources.timm.store import find_network
from headstart.sources.registry import open_source
name = sys.argv[1]
print(hashlib.sha256(find_network(name).graph).hexdigest(), open_source("timm:" + name).fingerprint)
print([package for package in ("torch", "timm", "torchvision") if package in sys.modules])
"""


def python(*args: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    return subprocess.run(
        [sys.executable, *args], check=False, capture_output=True, text=True, env=kept | environment
    )


def test_another_process_has_the_same_graph_without_torch(folder: Path, warm: Path) -> None:
    name = f"local-dir:{folder}"
    graph, source = find_network(name).graph, opened("mine", folder)
    done = python("-c", FRESH, name, HEADSTART_CACHE=str(warm))
    assert done.stdout.split("\n")[:2] == [f"{sha256(graph).hexdigest()} {source.fingerprint}", "[]"], (
        done.stderr
    )


def test_a_kept_graph_needs_neither_torch_nor_timm(
    folder: Path, warm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find_network(f"local-dir:{folder}")
    for package in ("torch", "timm", "headstart.sources.timm.export"):
        monkeypatch.setitem(sys.modules, package, None)
    moved = shutil.copytree(folder, warm.parent / f"{warm.name}-moved")
    assert find_network(f"local-dir:{moved}").graph == find_network(f"local-dir:{folder}").graph
    with pytest.raises(MissingExtraError, match=r"the first use of source 'timm:test_resnet': expected"):
        find_network("test_resnet")


def test_a_damaged_graph_is_exported_again_to_the_same_bytes(
    warm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = find_network("test_efficientnet", pretrained=False).graph
    copied = shutil.copytree(warm, tmp_path / "cache")
    monkeypatch.setenv("HEADSTART_CACHE", str(copied))
    for file in (copied / "graphs").glob("*.onnx"):
        file.write_bytes(file.read_bytes()[:-1])
    with pytest.warns(CacheWarning, match="is damaged .*: it is exported again"):
        again = find_network("test_efficientnet", pretrained=False)
    assert again.graph == whole
    assert whole in [file.read_bytes() for file in (copied / "graphs").glob("*.onnx")]


@pytest.mark.slow
def test_another_seed_or_size_is_another_graph(warm: Path) -> None:
    first = find_network("test_efficientnet", pretrained=False)
    seed = find_network("test_efficientnet", pretrained=False, seed=1)
    size = find_network("test_efficientnet", pretrained=False, size_px=64)
    assert len({first.graph, seed.graph, size.graph}) == 3
    assert first.about["checksum"] == size.about["checksum"] != seed.about["checksum"]
    assert (first.size, size.size) == ((160, 160), (64, 64))
    assert size.about["taps"]["stage5"] == [64, 2, 2]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Exports of a tiny network in place of timm's, noted."""
    noted: list[str] = []
    value = helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["n", 3, 8, 8])
    builder = GraphBuilder(helper.make_model(helper.make_graph([], "tiny", [value], [])))
    graph = builder.model([builder.add("Relu", "pixels", name="stage1")])

    def export(name: str, **_: Any) -> ExportedNetwork:
        noted.append(name)
        scaling = (0.0,) * 3, (1.0,) * 3
        return ExportedNetwork(
            graph,
            {"stage1": (3, 8, 8)},
            (8, 8),
            *scaling,
            "bilinear",
            1.0,
            None,
            0,
            Licence("mit", "here"),
            "0" * 64,
        )

    monkeypatch.setattr(timm_source, "export_network", export)
    return noted


def graphs() -> list[Path]:
    return sorted((Path(os.environ["HEADSTART_CACHE"]) / "graphs").glob("*"))


def test_a_network_is_exported_once_for_all_that_decides_it(calls: list[str], folder: Path) -> None:
    asked: list[tuple[str, dict[str, Any]]] = [
        ("a", {}),
        ("b", {}),
        ("a", {"size_px": 9}),
        ("a", {"pretrained": False}),
        ("a", {"pretrained": False, "seed": 1}),
        (f"local-dir:{folder}", {}),
    ]
    for _ in range(2):
        for name, options in asked:
            find_network(name, **options)
        assert calls == [name for name, _ in asked]
    find_network("a", seed=5)
    assert len(calls) == len(asked), "a seed does not enter where nothing is drawn"


def test_other_weights_in_the_same_folder_are_another_network(calls: list[str], tmp_path: Path) -> None:
    for seed, count in ((0, 1), (0, 1), (1, 2)):
        find_network(f"local-dir:{saved(drawn('test_resnet', seed), tmp_path / 'same')}")
        assert len(calls) == count
    (tmp_path / "same/config.json").write_text("{}")
    find_network(f"local-dir:{tmp_path / 'same'}")
    assert len(calls) == 3


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-10])


@pytest.mark.parametrize("kind", ["json", "onnx"])
@pytest.mark.parametrize(
    "damage",
    [cut, Path.unlink, lambda file: file.write_bytes(b"\xff\xfe"), lambda file: file.write_text("{}")],
    ids=["cut", "gone", "noise", "empty"],
)
def test_what_is_not_whole_is_made_anew(
    calls: list[str], kind: str, damage: Callable[[Path], object]
) -> None:
    whole = find_network("a")
    damage(next(file for file in graphs() if file.suffix == f".{kind}"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CacheWarning)
        assert find_network("a") == whole
    assert find_network("a") == whole
    assert calls == ["a", "a"] and len(graphs()) == 2


@pytest.mark.parametrize("kind", ["json", "onnx"])
def test_no_flipped_bit_of_a_kept_network_is_used(calls: list[str], kind: str) -> None:
    """The description as well: its mean and size decide the features."""
    whole = find_network("a")
    file = next(file for file in graphs() if file.suffix == f".{kind}")
    content = file.read_bytes()
    for count, place in enumerate(range(0, len(content), len(content) // 20), 2):
        file.write_bytes(content[:place] + bytes([content[place] ^ 1 << place % 8]) + content[place + 1 :])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CacheWarning)
            assert find_network("a") == whole
        assert len(calls) == count, place


def test_without_a_cache_that_can_be_written_a_network_is_exported_each_time(
    calls: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path))
    (tmp_path / "graphs").write_text("a file")
    for _ in range(2):
        with pytest.warns(
            CacheWarning, match=r"^cache '.*' cannot be written \(.+\): networks are exported each"
        ):
            assert find_network("a").name == "a"
    assert calls == ["a", "a"]


# what cannot be loaded


def refused(error: type[HeadstartError], name: str, **options: Any) -> str:
    """The one line that says why, with nothing kept."""
    with pytest.raises(HeadstartError) as caught:
        open_source(name, **options)
    assert type(caught.value) is error, repr(caught.value)
    said = str(caught.value)
    assert "\n" not in said and "expected" in said and len(said) < 600 and name in said
    assert graphs() == []
    return said


def config(folder: Path, **changes: Any) -> None:
    known = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**known, **changes}))


def without_a_weight(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    save_file({key: tensors[key] for key in sorted(tensors)[1:]}, folder / "model.safetensors")


DAMAGES: dict[str, tuple[Callable[[Path], object], type[HeadstartError]]] = {
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), MissingDataError),
    "a pickle only": (
        lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"),
        MissingDataError,
    ),
    "no config": (lambda folder: (folder / "config.json").unlink(), MissingDataError),
    "no folder": (shutil.rmtree, MissingDataError),
    "truncated": (
        lambda folder: (folder / "model.safetensors").write_bytes(
            (folder / "model.safetensors").read_bytes()[:1_000]
        ),
        SourceError,
    ),
    "empty": (lambda folder: (folder / "model.safetensors").write_bytes(b""), SourceError),
    "a weight missing": (without_a_weight, SourceError),
    "other shapes": (lambda folder: config(folder, num_classes=9), SourceError),
    "other network": (lambda folder: config(folder, architecture="test_vit"), SourceError),
    "unknown network": (lambda folder: config(folder, architecture="resnet51"), SourceError),
    "no network named": (lambda folder: (folder / "config.json").write_text("{}"), SourceError),
    "config is no JSON": (lambda folder: (folder / "config.json").write_text("{"), SourceError),
    "config is a list": (lambda folder: (folder / "config.json").write_text("[]"), SourceError),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_folder_that_is_not_whole_is_one_line(damage: str, folder: Path, tmp_path: Path) -> None:
    home = shutil.copytree(folder, tmp_path / "copy")
    change, error = DAMAGES[damage]
    change(home)
    refused(error, f"{LOCAL}{home}")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("timm:resnet51", "is unknown, expected a network of timm, nearest are resnet51q, resnet50"),
        ("timm:resnet50.nonsense", "has no pretrained weights, expected one of its tags, known are a1_in1k"),
        ("timm:resnet50.a1_in1", "nearest are a1_in1k"),
        ("timm:test_mambaout", "has no pretrained weights, expected a network that has some"),
        ("timm:", "is unknown, expected a network of timm"),
        ("timm:../resnet50", "is unknown, expected a network of timm"),
        ("random:timm:resnet51", "nearest are resnet51q, resnet50"),
    ],
)
def test_a_name_that_has_no_weights_is_one_line(name: str, said: str) -> None:
    with pytest.raises(UnknownSourceError) as caught:
        open_source(name)
    text = str(caught.value)
    assert said in text and "\n" not in text and name.removeprefix("random:") in text and graphs() == []


def test_a_size_that_a_network_cannot_take_is_one_line() -> None:
    with pytest.raises(SourceError, match=r"'timm:test_vit' cannot be exported at 100 x 100 px") as caught:
        open_source("random:timm:test_vit", size_px=100)
    assert "\n" not in str(caught.value) and graphs() == []


@pytest.mark.parametrize("size_px", [0, -5])
def test_a_size_is_at_least_a_pixel(calls: list[str], size_px: int) -> None:
    with pytest.raises(SettingError, match=f"size is {size_px}"):
        open_source("timm:a", size_px=size_px)


@pytest.mark.parametrize("name", ["pixels", "random:cnn", "no-such-source"])
def test_a_size_is_for_networks_of_timm_and_photos_only(name: str) -> None:
    with pytest.raises(
        SettingError, match=rf"size is 64 for source '{name}', expected a size for photos.*timm"
    ):
        open_source(name, size_px=64)


ALONE = """
import sys
from headstart.errors import HeadstartError
from headstart.sources.registry import open_source
try:
    open_source(sys.argv[1])
except HeadstartError as error:
    print(type(error).__name__, error)
"""


@pytest.mark.slow
def test_without_a_network_missing_weights_are_one_line(tmp_path: Path) -> None:
    done = python(
        "-c",
        ALONE,
        "timm:test_resnet",
        HF_HUB_OFFLINE="1",
        HF_HOME=str(tmp_path / "hub"),
        HEADSTART_CACHE=str(tmp_path / "cache"),
    )
    assert done.returncode == 0 and done.stderr == ""
    assert done.stdout.startswith("SourceError source 'timm:test_resnet' cannot be downloaded from http")
    assert done.stdout.count("\n") == 1 and "timm:local-dir:PATH" in done.stdout
    assert "HF_HUB_OFFLINE is set" in done.stdout
    assert not (tmp_path / "cache" / "graphs").exists()


# places worth a trial


def described(layers: dict[str, tuple[int, ...]], side: int = 32, **changes: Any) -> ImageNetwork:
    value = helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["n", 3, side, side])
    builder = GraphBuilder(helper.make_model(helper.make_graph([], "taps", [value], [])))
    for layer in layers:
        builder.add("Identity", "pixels", name=layer)
    about = {
        **{"sha256": "0", "taps": layers, "size": [side, side], "mean": [0.5] * 3, "std": [0.5] * 3},
        **{"interpolation": "bicubic", "crop_share": 0.9, "classes": None, "n_parameters": 5},
        **{"gflops": 0.1, "licence": "mit", "checksum": "c", "size_px": 32},
    }
    return ImageNetwork("taps", builder.model(list(layers)).SerializeToString(), about | changes)


STAGES: dict[str, tuple[int, ...]] = {f"stage{n}": (100 + n, 4, 4) for n in range(1, 8)}


def test_candidates_are_the_last_stages_two_joined_and_the_top() -> None:
    layers = STAGES | {"embedding": (120,), "logits": (10,)}
    found = network_source(described(layers), None, "taps").candidates
    last = [f"stage{n}" for n in range(3, 8)] + ["stage6+stage7"]
    maps = [(layer, pooling) for layer in last for pooling in ("avg", "grid2")]
    assert found == (*maps, ("embedding", "flat"), ("logits", "flat"))


@pytest.mark.parametrize(
    ("width", "poolings"),
    [(15, []), (16, ["grid2"]), (64, ["avg", "grid2"]), (2_048, ["avg", "grid2"]), (2_049, ["avg"])],
)
def test_rows_are_neither_too_short_nor_too_long(width: int, poolings: list[str]) -> None:
    source = network_source(described({"stage1": (width, 2, 2)}), None, "taps")
    assert source.candidates == tuple(("stage1", pooling) for pooling in poolings)
    assert source.default_layer == "stage1"


@pytest.mark.parametrize(("side", "size"), [(32, 64), (56, 64), (112, 16), (224, 4), (448, 1), (900, 1)])
def test_large_inputs_go_in_small_batches(side: int, size: int) -> None:
    assert network_source(described(STAGES, side), None, "taps").batch_size == size


@pytest.mark.parametrize(
    ("native", "kept"), [((28, 28, 1), True), ((32, 32, 3), True), ((33, 20, 1), False), ((20, 33, 3), False)]
)
def test_images_within_the_network_s_size_go_in_as_they_are(native: tuple[int, int, int], kept: bool) -> None:
    source = network_source(described(STAGES), InputSpec(*native), "taps")
    scaling = (0.5,) * 3, (0.5,) * 3
    cropped = InputSpec(32, 32, 3, *scaling, "crop", "bicubic", 0.9)
    assert source.input == (InputSpec(*native, *scaling, "squish", "bicubic") if kept else cropped)


def test_notes_are_what_the_makers_say() -> None:
    source = network_source(described(STAGES, classes=["ant", "bee"]), None, "taps")
    said = {"n_parameters": 5, "gflops": 0.1, "licence": "mit", "checksum": "c"}
    assert source.notes == {**said, "size_px": 32}
    assert source.classes == ("ant", "bee") and source.name == "taps"


# names


@pytest.mark.parametrize("pattern", ["v3_small_100", "timm:mobilenetv3_small_100", "*v3_small_10?.*"])
def test_names_with_weights_are_found_by_part_or_pattern(pattern: str) -> None:
    found = find_sources(pattern)
    assert "timm:mobilenetv3_small_100.lamb_in1k" in found
    assert all(name.startswith("timm:") and "v3_small_100." in name for name in found)


def test_no_pattern_is_every_name_with_weights() -> None:
    names = pretrained_names()
    assert len(names) > 1_000 and set(find_sources("resnet50")) < set(names)
    assert not any(name.startswith("timm:test_mambaout") for name in names)


def test_a_pattern_that_nothing_matches_is_one_sentence() -> None:
    with pytest.raises(UnknownSourceError, match=r"no network of timm matches 'resnt5000', expected part"):
        find_sources("resnt5000")


def test_without_timm_the_list_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingExtraError, match="timm"):
        find_sources("resnet")
