"""A dataset of the hub through the hub's own client, from a server on this machine that answers as the hub does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from headstart.data import load
from headstart.data.readers.hub import hub_name
from shard_files import CLASSES, image_folder, image_table, parquet_of

pytest.importorskip("huggingface_hub", reason="needs headstart[buckets]")
pytest.importorskip("pyarrow", reason="needs headstart[tables]")

PROGRAM = """
import json, sys
from headstart.data import load
from headstart.errors import HeadstartError
for name in sys.argv[1:]:
    try:
        data = load(name)
        splits = None if data.splits is None else data.splits.tolist()
        said = [data.name, data.images.fingerprint, data.classes, splits, data.images.image_name(0), data.remarks]
    except HeadstartError as error:
        said = f"{type(error).__name__}: {error}"
    print(json.dumps(said))
"""


class Hub(BaseHTTPRequestHandler):
    """``root/OWNER/NAME/REVISION/...`` as datasets: existence, listing, and parts of files."""

    root: Path

    def log_message(self, *_: object) -> None:
        """Be silent."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        parts = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
        if parts[:2] == ["api", "datasets"]:
            owner, name, action, revision = (*parts[2:6], "revision", "main")[:4]
            home = self.root / owner / name
            if not home.is_dir():
                self.answer(404, b"", {"X-Error-Code": "RepoNotFound"})
            elif not (home / revision.replace("/", "-")).is_dir():
                self.answer(404, b"", {"X-Error-Code": "RevisionNotFound"})
            elif action == "revision":
                self.answer(200, json.dumps({"id": f"{owner}/{name}", "sha": "0" * 40}).encode())
            else:
                self.listing(home / revision.replace("/", "-"), "/".join(parts[6:]))
            return
        owner, name, revision = parts[1], parts[2], parts[4]
        path = self.root / owner / name / revision.replace("/", "-") / "/".join(parts[5:])
        data, asked = path.read_bytes(), self.headers.get("Range")
        if asked:
            first, last = asked.removeprefix("bytes=").split("-")
            data = data[int(first) : int(last) + 1]
        self.answer(206 if asked else 200, data)

    def listing(self, home: Path, inside: str) -> None:
        deep = "recursive=True" in self.path or "recursive=true" in self.path
        found = sorted((home / inside).rglob("*") if deep else (home / inside).glob("*"))
        entries = [
            {
                "type": "directory" if one.is_dir() else "file",
                "path": str(one.relative_to(home)),
                "size": 0 if one.is_dir() else one.stat().st_size,
                "oid": "0" * 40,
            }
            for one in found
        ]
        self.answer(200, json.dumps(entries).encode())

    def answer(self, code: int, data: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(code)
        for name, value in {**(headers or {}), "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[str]:
    Hub.root = tmp_path / "hub"
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_datasets_of_the_hub(hub: str, tmp_path: Path) -> None:
    paths = image_folder(tmp_path / "folder")
    converted = Hub.root / "ann" / "pets" / "refs-convert-parquet"
    for split, some in (("train", paths[:16]), ("test", paths[16:])):
        parquet_of(converted / "default" / split / "0000.parquet", image_table(some, CLASSES))
        parquet_of(converted / "other" / split / "0000.parquet", image_table(some[:3], CLASSES))
    plain = Hub.root / "ann" / "plain" / "main" / "data"
    parquet_of(plain / "train-00000-of-00002.parquet", image_table(paths[:16], CLASSES))
    (plain.parent / "README.md").write_text("about")
    (Hub.root / "ann" / "nothing" / "main").mkdir(parents=True)
    names = [
        *("hf:ann/pets", "hf:ann/pets/other", "hf:ann/plain", "hf:ann/pets:bee,cat"),
        *("hf:ann/nothing", "hf:ann/nobody", "hf:mnist", "hf:ann/pets/third"),
        "hf://datasets/ann/plain/data/*.parquet",
    ]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *names],
        env={**os.environ, "HF_ENDPOINT": hub, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    pets, other, plain_one, some, nothing, nobody, single, third, address = map(
        json.loads, done.stdout.splitlines()
    )
    digests = load(tmp_path / "folder").images
    order = [*range(16, 24), *range(16)]
    assert pets[0] == "ann/pets" and pets[2] == list(CLASSES) and pets[3] == ["test"] * 8 + ["train"] * 16
    assert pets[1] == digests.subset(order).fingerprint  # type: ignore[arg-type]
    assert pets[4] == "test/0000.parquet row 1" and not pets[5]
    assert other[1] == digests.subset([16, 17, 18, 0, 1, 2]).fingerprint  # type: ignore[arg-type]
    assert plain_one[1] == address[1] == digests.subset(list(range(16))).fingerprint  # type: ignore[arg-type]
    assert plain_one[5] == ["train has 1 of 2 shards: the others are missing"]
    assert some[0] == "ann/pets:bee,cat" and some[2] == ["bee", "cat"]
    assert nothing.startswith(
        "MissingDataError: dataset 'hf:ann/nothing' has no Parquet files on the hub, expected"
    )
    assert nobody.startswith(
        "MissingDataError: dataset 'hf:ann/nobody' has no Parquet files on the hub, expected"
    )
    assert single.startswith("DataError: dataset 'hf:mnist' has no owner, expected hf:OWNER/NAME; ")
    assert third.startswith(
        "DataError: dataset 'hf:ann/pets' has no configuration 'third', expected one of 'default'"
    )
    assert not list((tmp_path / "home").rglob("*.parquet"))


def test_names_of_the_hub() -> None:
    assert hub_name("hf:a/b") == ("a/b", None) and hub_name("hf:a/b/c") == ("a/b", "c")
    assert hub_name("hf://datasets/a/b") is None and hub_name("mnist:odd") is None and hub_name("hf:") is None
