"""The commands about frozen sources, by status, text and files: transfer, inspect, sources, run."""

from __future__ import annotations

import json
import os
import re
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from command import Run, Said, contents
from headstart.data.dataset import Dataset
from headstart.data.stores import ArrayImages
from headstart.models.model import open_model
from headstart.workflows.recipes.recipe import recipe_text

TINY = "random:timm:test_resnet"
AT_ONCE = ("--tap", "stage4", "--pooling", "avg", "--head", "ridge")
MODEL = ["card.md", "learned.safetensors", "manifest.json", "model.onnx", "report.html"]
MODEL += ["samples.safetensors", "weights.safetensors"]
Lay = Callable[..., Path]


@pytest.fixture
def lay(desk: Path, digits: Dataset) -> Lay:
    """Write pictures of digits into class folders: ``lay("pics", {"train/3": 20}, first=5)``."""

    def write(name: str, counts: dict[str, int], first: int = 0) -> Path:
        assert isinstance(digits.images, ArrayImages)
        for place, number in counts.items():
            home = desk / name / place
            home.mkdir(parents=True, exist_ok=True)
            for index in np.flatnonzero(digits.labels == home.name)[first : first + number]:
                Image.fromarray(digits.images.pixels[index, ..., 0]).save(home / f"{index}.png")
        return desk / name

    return write


@pytest.fixture
def splitted(lay: Lay) -> Path:
    """Pictures of threes and eights, 20 of each to learn from and 15 to be judged by."""
    lay("pics", {"train/3": 20, "train/8": 20})
    return lay("pics", {"val/3": 15, "val/8": 15}, first=20)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache for this file: the tiny network is exported once for each size."""
    pytest.importorskip("timm", reason="needs timm to make the tiny network")
    return tmp_path_factory.mktemp("tiny")


@pytest.fixture
def shared(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADSTART_CACHE", str(tiny))


def transferred(run: Run, *words: object, source: str = "pixels", data: str = "pics") -> Said:
    said = run("transfer", source, data, "-o", "m", "--head", "ridge", *words)
    assert said.code == 0, said.err
    return said


def graph(folder: str = "m") -> bytes:
    return open_model(folder).graph


def bomb(path: Path, side: int = 30_000) -> None:
    """A PNG of a few kilobytes that unpacks to nearly a gigabyte."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    packed = zlib.compress(bytes(1_000_000), 9)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")
    )


# --- transfer


@pytest.mark.skipif(sys.platform != "linux", reason="needs file names that are no text")
@pytest.mark.parametrize(
    "command", [("transfer", "pixels"), ("study", "pixels", "--labels", "all", "--draws", "2")]
)
def test_a_file_name_that_is_no_text(run: Run, desk: Path, splitted: Path, command: tuple[str, ...]) -> None:
    """All work was done, and then nothing was saved: a report names its most confident mistakes and examples."""
    for name in sorted(os.listdir(b"pics/val/3")):
        os.rename(b"pics/val/3/" + name, b"pics/val/3/\xff" + name)
    said = run(command[0], command[1], "pics", "-o", "m", "--json", *command[2:])
    assert said.code == 0 and "error" not in said.err, said.err
    assert json.loads(said.out)["report"] == "m/report.html"
    page = (desk / "m/report.html").read_bytes().decode()
    assert "\udcff" not in page
    if command[0] == "transfer":
        assert b"\\udcff" in page.encode(), "an example of a mistake is named"
        assert open_model("m").classes == ("3", "8")


def test_transfer_leaves_a_model_with_its_report(run: Run, desk: Path, splitted: Path) -> None:
    said = transferred(run, source="random:cnn")
    assert said.err == "" and said.out.endswith("\nModel: m\nReport: m/report.html\n")
    for name in ("probe", "HOG", "raw pixels", "majority"):
        assert re.search(rf"^{name} +\d+\.\d\d \[\d+\.\d, \d+\.\d\]$", said.out, re.MULTILINE), name
    assert "on the same 30 " in said.out
    assert sorted(path.name for path in (desk / "m").iterdir()) == MODEL
    page = (desk / "m/report.html").read_text()
    assert "headstart transfer random:cnn pics -o m --head ridge" in page and "With all 40 labels" in page
    shares = json.loads(run("evaluate", "m", "pics", "--split", "val", "--json").out)["accuracy"]
    assert f"{100 * shares['value']:.2f}" in said.out.splitlines()[3]
    assert run("predict", "m", splitted / "val").code == 0


def test_transfer_as_json_is_the_result(run: Run, desk: Path, splitted: Path) -> None:
    document = transferred(run, "--json").document
    assert (document["model"], document["report"]) == ("m", "m/report.html")
    assert [row["strategy"] for row in document["result"]["rows"]] == ["probe"]
    assert document["result"]["verdict"] in (desk / "m/report.html").read_text()


@pytest.mark.slow
def test_a_second_transfer_replaces_the_first(run: Run, desk: Path, splitted: Path) -> None:
    transferred(run)
    before = contents(desk / "m")
    transferred(run, "--balance", "--augment", "flip=0.5", "--copies", "1")
    after = contents(desk / "m")
    assert sorted(after) == sorted(before) == MODEL
    assert all(after[name] != before[name] for name in ("model.onnx", "manifest.json", "report.html"))
    assert not [path for path in desk.rglob(".*")]


def test_other_files_are_kept(run: Run, refused: Callable[..., Said], splitted: Path) -> None:
    transferred(run)
    Path("m/notes.txt").write_text("mine")
    refused("transfer", "pixels", "pics", "-o", "m", names=("'notes.txt'", "no part of an older result"))
    Path("other").mkdir()
    Path("other/notes.txt").write_text("mine")
    refused("transfer", "pixels", "pics", "-o", "other", names=("other'", "expected"))


@pytest.mark.parametrize("words", [(), ("--json",)])
def test_few_images_are_evaluated_also_without_selection(run: Run, lay: Lay, words: tuple[str, ...]) -> None:
    lay("pics", {"3": 10, "8": 10})
    said = transferred(run)
    assert "of 20 cross-validated images are classified correctly [" in said.out
    assert "Report: m/report.html" in said.out


@pytest.mark.usefixtures("shared")
def test_few_images_are_cross_validated(run: Run, lay: Lay) -> None:
    lay("pics", {"3": 10, "8": 10})
    said = transferred(run, "--size", "64", source=TINY)
    assert "of 20 cross-validated images are classified correctly [" in said.out
    for name in ("probe", "HOG", "raw pixels", "majority"):
        assert re.search(rf"^{name} +\d+\.\d\d \[", said.out, re.MULTILINE)


# --- what is in the folder


def test_one_image_of_a_class(refused: Callable[..., Said], lay: Lay) -> None:
    lay("pics", {"3": 10, "8": 1})
    refused("transfer", "pixels", "pics", "-o", "m", names=("class '8'", "1 training image", "at least 2"))


def test_an_image_in_two_splits(run: Run, refused: Callable[..., Said], splitted: Path, lay: Lay) -> None:
    lay("pics", {"val/8": 5}, first=15)
    refused("transfer", "pixels", "pics", "-o", "m", names=("5 image(s) in two splits", "--allow-leaks"))
    said = transferred(run, "--allow-leaks")
    remark = "an image of train is also in val: 5 pairs"
    assert remark in said.out and remark in Path("m/report.html").read_text()


def test_splits_with_other_classes(refused: Callable[..., Said], lay: Lay) -> None:
    lay("pics", {"train/3": 10, "train/8": 10, "val/3": 5})
    lay("pics", {"val/9": 5})
    refused("transfer", "pixels", "pics", "-o", "m", names=("'9'",))


def test_other_files_are_skipped_and_counted(run: Run, refused: Callable[..., Said], splitted: Path) -> None:
    good = next((splitted / "train/3").iterdir()).read_bytes()
    home = splitted / "train" / "8"
    (home / "torn.png").write_bytes(good[:-30])
    (home / "empty.png").write_bytes(b"")
    (home / "text.jpg").write_text("no picture at all")
    bomb(home / "bomb.png")
    (home / "notes.txt").write_text("nobody takes this for a picture")
    (home / "Thumbs.db").write_bytes(b"\0")
    said = transferred(run)
    assert said.err.count("\n") == 1 and said.err.startswith("headstart: 5 of 75 files skipped: ")
    assert "and 4 more" in said.err and "5 files were left out" in said.out
    assert open_model("m").manifest.data["n_images"] == 40
    skipped = run("inspect", "pics", "--quick", "--json").document["skipped"]
    assert {Path(name).name: reason[:5] for name, reason in skipped.items()} == {
        **dict.fromkeys(("notes.txt", "empty.png", "text.jpg"), "it is"),
        "bomb.png": "it ha",
        "torn.png": skipped_reason(skipped),
    }
    refused("transfer", "pixels", "pics", "-o", "new", "--strict", names=("bomb.png", "4 of 75"))


def skipped_reason(skipped: dict[str, str]) -> str:
    return next(reason[:5] for name, reason in skipped.items() if name.endswith("torn.png"))


def test_a_bomb_is_refused_by_its_header(run: Run, splitted: Path) -> None:
    bomb(splitted / "train/3/bomb.png")
    said = transferred(run)
    assert "bomb.png (it has too many pixels)" in said.err


# --- sources


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("pixel", ("'pixel'", "pixels")),
        ("random:cn", ("random:cnn",)),
        ("timm:local-dir:absent", ("absent", "config.json and model.safetensors")),
        ("absent/folder", ("'absent/folder'", "headstart sources")),
    ],
)
def test_an_absent_source(refused: Callable[..., Said], source: str, names: tuple[str, ...]) -> None:
    refused("transfer", source, "digits", "-o", "m", names=names)


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (("transfer", "drawings", "digits", "--strategy", "finetnue"), ("'finetnue'", "probe or finetune")),
        (("transfer", "drawings", "digits", "--unfreeze", "all"), ("'all' without the strategy finetune",)),
        (("study", "drawings", "digits", "--strategies", "probe,fintune"), ("'fintune'", "finetune")),
        (
            ("study", "drawings", "digits", "--strategies", "finetune", "--unfreeze", "last2"),
            ("unfreeze is 'last2'", "last"),
        ),
        (("run", "odd-to-even", "--strategies", "all"), ("strategy is 'all'", "scratch")),
        (("train", "digits", "--device", "gpu"), ("device is 'gpu'", "auto, cpu, cuda, mps")),
    ],
    ids=" ".join,
)
def test_an_invalid_unfreeze_is_one_sentence(
    refused: Callable[..., Said], words: tuple[str, ...], names: tuple[str, ...], desk: Path
) -> None:
    refused(*words, "-o", "o", names=names)
    assert not (desk / "o").exists()


@pytest.mark.usefixtures("tiny")
def test_an_unknown_timm_network_gets_the_nearest(refused: Callable[..., Said]) -> None:
    for kind in ("timm:", "random:timm:"):
        refused("transfer", f"{kind}test_resnit", "digits", "-o", "m", names=("nearest are test_resnet",))


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("n_bytes", [4, 1_000, 100_000])
def test_truncated_weights(refused: Callable[..., Said], desk: Path, n_bytes: int) -> None:
    import timm
    from safetensors.torch import save

    home = desk / "network"
    home.mkdir()
    weights = timm.create_model("test_resnet").state_dict()
    data = save({name: tensor.contiguous() for name, tensor in weights.items()})
    (home / "model.safetensors").write_bytes(data[:n_bytes])
    (home / "config.json").write_text('{"architecture": "test_resnet"}')
    refused("transfer", "timm:local-dir:network", "digits", "-o", "m", names=("'timm:local-dir:network'",))


def test_sources_list_finds_by_part_of_a_name(run: Run, refused: Callable[..., Said], tiny: Path) -> None:
    assert run("sources", "list", "test_res") == Said(0, "timm:test_resnet.r160_in1k\n", "")
    found = run("sources", "list", "timm:test_*", "--json").document["sources"]
    assert "timm:test_resnet.r160_in1k" in found and all(name.startswith("timm:test_") for name in found)
    refused("sources", "list", "zzz", names=("'zzz'",))


@pytest.mark.usefixtures("shared")
def test_sources_show_a_timm_network(run: Run) -> None:
    said = run("sources", "show", TINY, "--size", "64")
    assert (said.code, said.err) == (0, "")
    for words in (
        "469,688",
        "none needed: no weights",
        "64 x 64 px",
        "tried by cross validation",
        "stage4 avg",
    ):
        assert words in said.out, words
    document = run("sources", "show", TINY, "--size", "64", "--data", "digits", "--json").document
    assert document["input"].startswith("8 x 8 px") and "stage5" in document["layers"]


# --- how it is fitted


@pytest.mark.slow
def test_a_flip_on_digits_is_warned_about_with_its_cost(run: Run, splitted: Path) -> None:
    said = transferred(run, "--augment", "textbook", "--copies", "1")
    assert "a flip changes what digits and letters mean" in said.out and "1.8 points" in said.out
    assert "1.8 points" in Path("m/report.html").read_text()
    assert "flip" not in transferred(run, "--augment", "handwriting", "--copies", "1").out


@pytest.mark.slow
def test_copies_change_the_fit_and_the_seed_repeats_it(run: Run, splitted: Path) -> None:
    graphs = []
    for words in (
        (),
        ("--copies", "1"),
        ("--copies", "2"),
        ("--copies", "2"),
        ("--copies", "2", "--seed", "1"),
    ):
        transferred(run, *(("--augment", "shear=0.2", *words) if words else ()))
        graphs.append(graph())
    assert graphs[2] == graphs[3] and len(set(graphs)) == 4
    assert open_model("m").manifest.settings["augmentation"] == {"operations": {"shear": 0.2}, "n_copies": 2}


@pytest.mark.slow
def test_balance_changes_the_predictions(run: Run, lay: Lay) -> None:
    lay("pics", {"3": 80, "8": 5})
    lay("rest", {"8": 100, "3": 1}, first=80)
    counts = []
    for words in ((), ("--balance",)):
        run("transfer", "pixels", "pics", "-o", "m", "--head", "ridge", *words)
        answers = run("predict", "m", "rest/8", "--json", "--top", "1").document["answers"]
        counts.append(sum(one["classes"] == ["8"] for one in answers))
    assert counts[1] > counts[0]


@pytest.mark.slow
def test_the_policy_is_the_model_s(run: Run, splitted: Path) -> None:
    graphs = []
    for policy in (None, "letterbox", "ink"):
        transferred(run, *(() if policy is None else ("--policy", policy)))
        graphs.append(graph())
        assert open_model("m").manifest.input.policy == (policy or "squish")
    assert graphs[0] != graphs[2]
    assert run("predict", "m", "pics/val").code == 0


@pytest.mark.slow
@pytest.mark.usefixtures("shared")
def test_the_size_is_the_model_s(run: Run, splitted: Path) -> None:
    for size in (48, 64):
        said = run("transfer", TINY, "pics", "-o", "m", "--size", size, *AT_ONCE)
        assert said.code == 0, said.err
        spec = open_model("m").manifest.input
        assert (spec.height_px, spec.width_px, spec.channels) == (size, size, 3)


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (("--augment", "textbok"), ("'textbok'", "nearest are textbook")),
        (("--augment", "shaer=0.2"), ("'shaer'", "shear")),
        (("--augment", "shear=9"), ("shear", "0 to 1")),
        (("--augment", "shear=much"), ("'much'", "number")),
        (("--augment", ""), ("augmentation ''",)),
        (("--policy", "inkk"), ("'inkk'", "ink")),
        (("--size", "64"), ("size is 64", "timm:NAME")),
        (("--tap", "valeus"), ("'valeus'", "values")),
    ],
)
def test_a_wrong_option_is_one_line(
    refused: Callable[..., Said], words: tuple[str, ...], names: tuple[str, ...]
) -> None:
    refused("transfer", "pixels", "digits", "-o", "m", *words, names=names)


@pytest.mark.parametrize("words", [("--size", "8"), ("--size", "big"), ("--copies", "0"), ("--copies", "x")])
def test_an_impossible_number_is_wrong_usage(run: Run, desk: Path, words: tuple[str, ...]) -> None:
    said = run("transfer", "pixels", "digits", "-o", "m", *words)
    assert said.code == 2 and said.out == "" and words[0] in said.err and not list(desk.iterdir())


# --- inspect


def test_inspect_finds_what_is_wrong(run: Run, splitted: Path, lay: Lay) -> None:
    lay("pics", {"val/8": 2}, first=18)
    said = run("inspect", "pics", "--quick")
    assert (said.code, said.err) == (0, "") and "an image of train is also in val: 2 pairs" in said.out
    document = run("inspect", "pics", "--json").document
    exact = [one for one in document["duplicates"] if one["kind"] == "exact"]
    assert [one["splits"] for one in exact] == [["train", "val"]] * 2 and all(one["leak"] for one in exact)
    assert document["images_per_split_and_class"]["val"] == {"3": 15, "8": 17}
    assert document["sizes_px"]["median"] == "8 x 8" and document["formats"] == {"PNG": 72}


def test_quick_opens_no_image(run: Run, splitted: Path) -> None:
    assert "sizes_px" not in run("inspect", "pics", "--quick", "--json").document
    assert "no problems were found" in run("inspect", "pics", "--quick").out


# --- run


@pytest.mark.usefixtures("shared")
def test_run_a_frozen_recipe_on_another_source_and_size(run: Run, desk: Path) -> None:
    text = re.sub(r"(?m)^labels_per_class = .*", "labels_per_class = 10", recipe_text("vgg16-mnist"))
    text = re.sub(r"(?m)^draws = .*", "draws = 1", text)
    Path("mine.toml").write_text(re.sub(r"(?ms)^\[textbook\].*?(?=^\[study\])", "", text))
    said = run("run", "mine.toml", "--data", "digits:3,8", "--source", TINY, "--size", "48")
    assert said.code == 0 and said.out.endswith("\nReport: runs/mine-digits-3,8/report.html\n"), said.err
    assert re.search(r"^raw pixels +\d", said.out, re.MULTILINE) and "textbook, no" not in said.out
    assert open_model("runs/mine-digits-3,8/model").manifest.source["name"] == TINY


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (("pretrained-digits", "--engine", "torch"), ("'pretrained-digits'", "--engine")),
        (("parity", "--source", "pixels"), ("'parity'", "--source")),
        (("parity", "--size", "64"), ("'parity'", "--size")),
        (("vgg16-mnst",), ("'vgg16-mnst'", "vgg16-mnist")),
        (("vgg16-mnist", "--source", "pixel"), ("'pixel'", "pixels")),
        (("vgg16-mnist", "--source", "pixels", "--data", "digits:12"), ("'12'",)),
    ],
)
def test_an_impossible_run(
    refused: Callable[..., Said], words: tuple[str, ...], names: tuple[str, ...]
) -> None:
    refused("run", *words, "-o", "out", names=names)


def test_more_labels_than_images(refused: Callable[..., Said], desk: Path) -> None:
    text = recipe_text("vgg16-mnist").replace("labels_per_class = 100", "labels_per_class = 500")
    (desk / "mine.toml").write_text(text)
    refused("run", "mine.toml", "--source", "pixels", "-o", "out", names=("'mine'", "500", "--data"))


def test_frozen_recipes_are_listed_and_shown(run: Run) -> None:
    for name in ("pretrained-digits", "vgg16-mnist"):
        assert re.search(rf"^{name} +\S", run("recipes", "list").out, re.MULTILINE)
    assert run("recipes", "show", "vgg16-mnist") == Said(0, recipe_text("vgg16-mnist"), "")


# --- the second time

WATCHED = """
import json, os, sys
from headstart.interfaces.cli import main as cli
from headstart.graph import run as runtime
compiled, real = [], runtime.compile_graph
runtime.compile_graph = lambda *given, **options: compiled.append(1) or real(*given, **options)
sys.argv = ["headstart", *sys.argv[1:]]
try:
    cli.main()
except SystemExit as left:
    code = left.code or 0
heavy = [name for name in ("torch", "timm", "kornia") if name in sys.modules]
print(json.dumps({"code": code, "heavy": heavy, "compiled": len(compiled)}), file=sys.stderr)
"""


@pytest.mark.slow
def test_the_second_transfer_needs_no_torch_and_computes_no_feature(tiny: Path, splitted: Path) -> None:
    words = ("transfer", TINY, "pics", "-o", "m", "--size", "48", "--augment", "shear=0.2", "--copies", "1")
    environment = {**os.environ, "HEADSTART_CACHE": str(tiny)}

    def once() -> tuple[Any, bytes]:
        ended = subprocess.run(
            [sys.executable, "-c", WATCHED, *words],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        return json.loads(ended.stderr.splitlines()[-1]), graph()

    (first, one), (second, two) = once(), once()
    assert first["code"] == 0 and first["heavy"] and first["compiled"] > 0
    assert second == {"code": 0, "heavy": [], "compiled": 0}
    assert one == two
