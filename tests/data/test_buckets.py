"""Datasets in a bucket: an S3 server on this machine, the same images and features, and what can go wrong."""

from __future__ import annotations

import csv
import io
import os
import pickle
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headstart.data import load
from headstart.data.contents import addresses, cells, objects
from headstart.data.contents.blocks import blocks
from headstart.data.depth import SharedDepth
from headstart.data.stores import FileImages
from headstart.errors import BrokenDataError, DataError, FetchError, HeadstartError, MissingDataError
from headstart.records import InputSpec
from headstart.sources.features import extract
from headstart.sources.registry import open_source
from shard_files import CLASSES, all_kinds, image_folder, image_table, parquet_of, samples, tar_of

moto = pytest.importorskip("moto.server", reason="needs moto[s3], flask and flask-cors")
s3fs = pytest.importorskip("s3fs", reason="needs headstart[buckets]")
pytest.importorskip("pyarrow", reason="needs headstart[tables]")

KINDS = ("folder", "tars", "json", "tables", "coded", "saved")


def closed_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    one = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    one.start()
    host, port = one.get_host_and_port()
    yield f"http://{host}:{port}"
    one.stop()


@pytest.fixture
def s3(server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An empty bucket called data, and the variables by which its server is found."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "FSSPEC_")):
            monkeypatch.delenv(name)
    for name, value in {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": server,
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    addresses.forget()
    system = s3fs.S3FileSystem()
    if system.exists("data"):
        system.rm("data", recursive=True)
    system.mkdir("data")
    yield system
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    return image_folder(tmp_path / "folder")


def put(s3: Any, home: Path) -> str:
    """Send a folder into the bucket; its address."""
    for path in home.rglob("*"):
        if path.is_file():
            s3.pipe_file(f"data/{home.name}/{path.relative_to(home)}", path.read_bytes())
    return f"s3://data/{home.name}"


def said(error: pytest.ExceptionInfo[HeadstartError]) -> str:
    text = str(error.value)
    assert "\n" not in text and ", expected " in text and "; " in text and "Traceback" not in text
    return text


@pytest.mark.parametrize("kind", KINDS)
def test_a_bucket_holds_the_dataset_that_the_folder_is(
    kind: str, s3: Any, tmp_path: Path, paths: list[Path]
) -> None:
    folder = load(tmp_path / "folder")
    data = load(put(s3, {**all_kinds(tmp_path, paths), "folder": tmp_path / "folder"}[kind]))
    assert data.fingerprint == folder.fingerprint and data.classes == CLASSES and data.name == kind
    assert not data.skipped and not data.remarks and data.images.paths is None
    assert np.array_equal(extract(data, open_source("pixels")), extract(folder, open_source("pixels")))
    spec = InputSpec(8, 8, 3)
    for place in (23, 0, 11):
        assert np.array_equal(data.images.prepared(place, spec), folder.images.prepared(place, spec))


def test_features_of_the_bucket_are_computed_not_only_found(
    s3: Any, tmp_path: Path, paths: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a cache of its own for each, so that nothing is shared."""
    kinds = {**all_kinds(tmp_path, paths), "folder": tmp_path / "folder"}
    expected = extract(load(tmp_path / "folder"), open_source("pixels"))
    for kind in KINDS:
        monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path / f"cache-{kind}"))
        assert np.array_equal(extract(load(put(s3, kinds[kind])), open_source("pixels")), expected), kind


def test_patterns_files_and_subsets(s3: Any, tmp_path: Path, paths: list[Path]) -> None:
    kinds = all_kinds(tmp_path, paths)
    put(s3, kinds["tars"])
    put(s3, kinds["tables"])
    whole = load(tmp_path / "folder").fingerprint
    for name in (
        "s3://data/tars/",
        "s3://data/tars/part-{0000..0002}.tar",
        "s3://data/tars/*.tar",
        "s3://data/tables/part-{0,1,2}.parquet",
        "s3://data/tables/part-?.parquet",
    ):
        assert load(name).fingerprint == whole, name
    assert len(load("s3://data/tars/part-0001.tar")) == len(load("s3://data/tables/part-1.parquet")) == 8
    assert load("s3://data/tars:ant,bee").classes == ("ant", "bee")
    assert load("s3://data/tables/*.parquet:bee,cat").classes == ("bee", "cat")
    assert load("s3://data/tars/part-0000.tar").name == "part-0000"


def test_another_file_system(tmp_path: Path, paths: list[Path]) -> None:
    """All that fsspec knows: here its files in memory."""
    import fsspec

    kinds, memory = all_kinds(tmp_path, paths), fsspec.filesystem("memory")
    for kind in ("tars", "tables", "folder"):
        for path in (tmp_path / kind).rglob("*.*"):
            memory.pipe_file(
                f"/box/{kind}/{path.relative_to(kinds.get(kind, tmp_path / kind))}", path.read_bytes()
            )
    whole = load(tmp_path / "folder").fingerprint
    for name in ("tars", "tars/part-{0000..0002}.tar", "tables/*.parquet", "folder"):
        assert load(f"memory://box/{name}").fingerprint == whole, name
    with pytest.raises(MissingDataError, match="has no files"):
        load("memory://nothing")


def test_class_folders_with_splits_and_other_files(s3: Any, tmp_path: Path, paths: list[Path]) -> None:
    for number, path in enumerate(paths):
        split = "Train" if number % 3 else "test"
        s3.pipe_file(f"data/pets/photos/{split}/{path.parent.name}/{path.name}", path.read_bytes())
    s3.pipe_file("data/pets/photos/train/readme.txt", b"about")
    s3.pipe_file("data/pets/photos/Train/loose.png", paths[0].read_bytes())
    s3.pipe_file("data/pets/photos/Train/ant/broken.png", b"no image")
    s3.pipe_file("data/pets/photos/Train/ant/.hidden.png", b"no image")
    local = tmp_path / "pets"
    s3.get("data/pets", str(local), recursive=True)
    (local / "photos" / "train" / "readme.txt").unlink()
    (local / "photos" / "train").rmdir()
    data, same = load("s3://data/pets/"), load(local)
    assert data.splits is not None and data.classes == CLASSES
    assert data.fingerprint == same.fingerprint
    assert {name.rpartition("/")[2] for name, _ in data.skipped} == {"readme.txt", "loose.png", "broken.png"}
    with pytest.raises(
        BrokenDataError, match=r"image 's3://data/pets/photos/Train/(ant/broken|loose).png' cannot be used"
    ):
        load("s3://data/pets/", strict=True)


def test_strange_names(s3: Any, tmp_path: Path, paths: list[Path]) -> None:
    names = ["a b", "50%", "x[1]", "größe", "q#1", "a+b&c=d", "x*y", "{1,2}", "dot.", "'quoted'"]
    for number, name in enumerate(names):
        s3.pipe_file(f"data/set [2]/{name}/{name} {number}.png", paths[number].read_bytes())
    data = load("s3://data/set [2]/")
    assert set(data.classes) == set(names) and len(data) == len(names) and not data.skipped
    digests = load(tmp_path / "folder").images.digests
    for place, label in enumerate(data.labels.tolist()):
        assert data.images.digests[place] == digests[names.index(label)]
        assert label in data.images.image_name(place)
    tar = tar_of(tmp_path / "t.tar", samples(paths)).read_bytes()
    s3.pipe_file("data/train [2] {a}.tar", tar)
    assert load("s3://data/train [2] {a}.tar").fingerprint == load(tmp_path / "folder").fingerprint


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (["1.png", "2.png"], "has 2 images and no class folders"),
        (["train/1.png", "test/2.png"], "has 2 images and no class folders"),
        (["train/a/1.png", "b/2.png"], "has 'b', 'train', expected folders for splits only"),
        (["a/notes.txt", "b/notes.md"], "has 2 files and neither shards nor images"),
        (["1.tar", "2.parquet"], "has files of the kinds '.parquet', '.tar', expected shards of one kind"),
    ],
)
def test_folders_that_cannot_be_used(
    names: list[str], sentence: str, s3: Any, tmp_path: Path, paths: list[Path]
) -> None:
    for name in names:
        s3.pipe_file(f"data/some/{name}", paths[0].read_bytes())
    with pytest.raises(DataError, match=f"'s3://data/some' {sentence}") as error:
        load("s3://data/some")
    said(error)


def test_tables_that_name_objects(s3: Any, tmp_path: Path, paths: list[Path]) -> None:
    import pyarrow
    from pyarrow import parquet

    put(s3, tmp_path / "folder")
    names = [f"folder/{path.parent.name}/{path.name}" for path in paths]
    labels = [path.parent.name for path in paths]
    rows = list(
        zip(["path", *names], ["label", *labels], ["split", *["train"] * 16, *["test"] * 8], strict=True)
    )
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    s3.pipe_file("data/t.csv", text.getvalue().encode())
    sink = io.BytesIO()
    addresses_of = [f"s3://data/{name}" if n % 2 else f"./{name}" for n, name in enumerate(names)]
    parquet.write_table(pyarrow.table({"path": addresses_of, "label": labels}), sink)
    s3.pipe_file("data/t.parquet", sink.getvalue())
    folder = load(tmp_path / "folder")
    assert load("s3://data/t.parquet").fingerprint == folder.fingerprint
    data = load("s3://data/t.csv")
    assert data.images.fingerprint == folder.images.fingerprint and len(data.split("test")) == 8
    assert data.images.image_name(0) == f"s3://data/{names[0]}"
    s3.pipe_file("data/bad.csv", b"path,label\nfolder/ant/gone.png,ant\n" + f"{names[0]},bee\n".encode())
    bad = load("s3://data/bad.csv")
    assert bad.skipped == (("s3://data/folder/ant/gone.png", "it does not exist; correct the address"),)
    s3.pipe_file("data/absolute.csv", b"path,label\n/etc/passwd,ant\n")
    with pytest.raises(
        DataError, match=r"row 2 of 's3://data/absolute.csv' has the path '/etc/passwd'"
    ) as error:
        load("s3://data/absolute.csv")
    said(error)
    s3.pipe_file("data/empty.csv", b"path,label\n")
    with pytest.raises(DataError, match=r"table 's3://data/empty.csv' has no rows"):
        load("s3://data/empty.csv")


def test_a_cell_that_names_an_object(s3: Any, tmp_path: Path, paths: list[Path]) -> None:
    import pyarrow

    put(s3, tmp_path / "folder")
    kind = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    named = [{"bytes": None, "path": f"../folder/{path.parent.name}/{path.name}"} for path in paths[:2]]
    named.append({"bytes": None, "path": "gone.png"})
    table = pyarrow.table({"image": pyarrow.array(named, kind), "label": ["a", "b", "a"]})
    parquet_of(tmp_path / "named" / "t.parquet", table)
    with pytest.raises(DataError, match="no image that can be read"):
        load(put(s3, tmp_path / "named") + "/t.parquet:a")
    named = [{**cell, "path": f"s3://data/{str(cell['path'])[3:]}"} for cell in named]
    table = pyarrow.table({"image": pyarrow.array(named, kind), "label": ["a", "b", "a"]})
    parquet_of(tmp_path / "named" / "t.parquet", table)
    data = load(put(s3, tmp_path / "named"))
    assert data.images.digests == load(tmp_path / "folder").images.digests[:2] and len(data.skipped) == 1


# faults


def forget_all() -> None:
    """As in another process: nothing is open, and nothing kept."""
    blocks().reset()
    addresses.forget()
    cells._OPEN.clear()


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        (
            "s3://nothing-here/a/",
            r"'s3://nothing-here/a/' does not exist \(The specified bucket does not exist\)",
        ),
        ("s3://nothing-here/a.tar", "does not exist"),
        ("s3://data/nothing/", "'s3://data/nothing/' has no files"),
        ("s3://data/nothing.tar", "'s3://data/nothing.tar' does not exist"),
        (
            "s3://data/nothing-{0..9}.tar",
            "'s3://data/nothing-0.tar' does not exist, and 9 others are missing",
        ),
        ("s3://data/*.parquet", r"'s3://data/\*.parquet' has no files"),
        ("s3://data/nothing.csv", "'s3://data/nothing.csv' does not exist"),
    ],
)
def test_what_is_not_there(name: str, sentence: str, s3: Any, paths: list[Path]) -> None:
    s3.pipe_file("data/some.txt", b"x")
    with pytest.raises(MissingDataError, match=sentence) as error:
        load(name)
    said(error)


def test_an_address_of_no_known_protocol(s3: Any) -> None:
    for name, sentence in {
        "s4://data/x": "has the unknown protocol 's4'",
        "s3://": "cannot be listed",
    }.items():
        with pytest.raises(DataError, match=sentence) as error:
            load(name)
        said(error)


def test_a_server_that_does_not_answer(s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{closed_port()}")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(
        FetchError, match=r"'s3://data/x' cannot be reached \(.*\), expected an answer of its server"
    ) as error:
        load("s3://data/x")
    said(error)


def test_no_credentials(s3: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE", "BOTO_CONFIG"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(
        FetchError, match="'s3://data/x' cannot be read without credentials, expected some; set AWS_"
    ):
        load("s3://data/x")


def test_permission_denied() -> None:
    with pytest.raises(
        FetchError, match=r"'s3://data/x' cannot be read \(Access Denied\), expected permission"
    ) as error:
        with addresses.explained("s3://data/x"):
            raise PermissionError("Access Denied")
    said(error)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from headstart.errors import MissingExtraError

    for name, module in {"s3://data/x": "s3fs", "gs://data/x": "gcsfs", "hf:a/b": "huggingface_hub"}.items():
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(
            MissingExtraError, match=rf"package {module}, .* pip install 'headstart\[buckets\]'$"
        ):
            load(name)


@pytest.mark.parametrize("kind", ["folder", "tars", "tables", "saved"])
def test_an_object_that_has_changed(kind: str, s3: Any, tmp_path: Path, paths: list[Path]) -> None:
    kinds = {**all_kinds(tmp_path, paths), "folder": tmp_path / "folder"}
    data = load(put(s3, kinds[kind]))
    name = data.images.image_name(20)
    last = sorted(s3.find(f"data/{kind}"))[-4 if kind == "folder" else -1 if kind != "saved" else -3]
    first = sorted(s3.find(f"data/{kind}"))[0]
    s3.pipe_file(last, s3.cat_file(first))
    elsewhere = pickle.loads(pickle.dumps(data.images.subset(np.array([20]))))
    forget_all()
    with pytest.raises(
        BrokenDataError, match=r"(has changed|changed since|lacks row|cannot be read)"
    ) as error:
        elsewhere.image(0)
    assert name in said(error)
    s3.rm(last)
    s3.invalidate_cache()
    forget_all()
    with pytest.raises((MissingDataError, BrokenDataError), match=name):
        pickle.loads(pickle.dumps(elsewhere)).image(0)


def test_a_cut_tar_and_a_cut_table(s3: Any, tmp_path: Path, paths: list[Path]) -> None:
    tar = tar_of(tmp_path / "t.tar", samples(paths)).read_bytes()
    table = parquet_of(tmp_path / "t.parquet", image_table(paths)).read_bytes()
    s3.pipe_file("data/cut/t.tar", tar[:4700])
    with pytest.raises(
        BrokenDataError, match=r"shard 's3://data/cut/t.tar' ends within 'ant/00006.png'"
    ) as error:
        load("s3://data/cut")
    said(error)
    s3.pipe_file("data/cut.parquet", table[: len(table) // 2])
    with pytest.raises(
        BrokenDataError, match=r"table 's3://data/cut.parquet' cannot be read \(Parquet magic"
    ) as error:
        load("s3://data/cut.parquet")
    said(error)
    s3.pipe_file("data/empty.tar", b"")
    with pytest.raises(BrokenDataError, match=r"shard 's3://data/empty.tar' is empty") as error:
        load("s3://data/empty.tar")
    said(error)


# how much is read


def test_a_few_images_of_a_large_shard_are_few_bytes(
    s3: Any, tmp_path: Path, paths: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    filler = os.urandom(300_000)
    members = []
    for number, path in enumerate(paths):
        members += [*samples([path]), (f"{path.parent.name}/{path.stem}.bin", filler + bytes([number]))]
    tar_of(tmp_path / "large" / "1.tar", members)
    data = load(put(s3, tmp_path / "large"))
    n_bytes = (tmp_path / "large" / "1.tar").stat().st_size
    fetched: list[int] = []
    original = addresses._Remote._fetch
    monkeypatch.setattr(
        addresses._Remote, "_fetch", lambda self, a, b: (fetched.append(b - a), original(self, a, b))[1]
    )
    addresses.forget()
    load("s3://data/large")
    assert n_bytes <= sum(fetched) < 1.01 * n_bytes + addresses._BLOCK_BYTES  # one pass, labels and images
    some = pickle.loads(pickle.dumps(data.images.subset(np.array([23, 3]))))
    addresses.forget()
    fetched.clear()
    for place in (0, 1):
        some.image(place)
    assert sum(fetched) < 1000


def test_objects_are_fetched_ahead_only_in_order(
    s3: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = image_folder(tmp_path / "many", 200)
    data = load(put(s3, tmp_path / "many"))
    fetched: list[int] = []
    original = objects.BucketObjects._load
    monkeypatch.setattr(
        objects.BucketObjects, "_load", lambda self, place: (fetched.append(place), original(self, place))[1]
    )
    blocks().reset()
    images = pickle.loads(pickle.dumps(data.images))
    for place in (150, 10, 190):
        assert images.read(place) == many[place].read_bytes()
    assert fetched == [150, 10, 190]
    fetched.clear()
    for place in range(0, 60):
        assert images.read(place) == many[place].read_bytes()
    assert len(fetched) == len(set(fetched))


def test_depth_of_images_that_were_not_examined(s3: Any, tmp_path: Path, paths: list[Path]) -> None:
    data = load(put(s3, tmp_path / "folder"))
    again = FileImages(data.images._contents)  # type: ignore[attr-defined]
    assert again.depth_bits is None and list(again.digests) == list(data.images.digests)
    assert SharedDepth.of_contents(data.images._contents).bits is None  # type: ignore[attr-defined]


def test_commands_take_an_address(run: Any, s3: Any, tmp_path: Path, paths: list[Path]) -> None:
    address = put(s3, all_kinds(tmp_path, paths)["tars"])
    done = run("inspect", address, "--json")
    assert done.code == 0 and '"ant"' in done.out
    done = run("transfer", "pixels", address, "-o", tmp_path / "model", "--json")
    assert done.code == 0, done.err
    done = run("inspect", "s3://data/nothing")
    assert done.code == 1 and done.err.strip().startswith(
        "headstart: error: 's3://data/nothing' has no files"
    )
