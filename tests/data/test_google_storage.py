"""``gs://`` through gcsfs, from a server on this machine that answers as Google's: listings, and parts of objects."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from headstart.data import load
from shard_files import all_kinds, image_folder

pytest.importorskip("gcsfs", reason="needs headstart[buckets]")
pytest.importorskip("pyarrow", reason="needs headstart[tables]")

PROGRAM = """
import sys
from headstart.data import load
from headstart.errors import HeadstartError
for name in sys.argv[1:]:
    try:
        print(load(name).fingerprint)
    except HeadstartError as error:
        print(f"{type(error).__name__}: {error}")
"""


class Storage(BaseHTTPRequestHandler):
    """The bucket called box."""

    objects: dict[str, bytes]

    def log_message(self, *_: object) -> None:
        """Be silent."""

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(address.query).items()}
        parts = [unquote(part) for part in address.path.strip("/").split("/")]
        name = "/".join(parts[parts.index("o") + 1 :])
        if not name:
            self.answer(200, self.listing(query.get("prefix", ""), query.get("delimiter", "")))
        elif name not in self.objects:
            self.answer(404, b"{}")
        elif query.get("alt") == "media":
            first, last = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")
            self.answer(206, self.objects[name][int(first) : int(last) + 1 if last else None])
        else:
            self.answer(200, json.dumps(self.item(name)).encode())

    def listing(self, prefix: str, delimiter: str) -> bytes:
        names = [name for name in sorted(self.objects) if name.startswith(prefix)]
        inner = {name: name[len(prefix) :].partition(delimiter or "\0") for name in names}
        items = [self.item(name) for name in names if not inner[name][1]]
        folders = sorted({prefix + one[0] + one[1] for one in inner.values() if one[1]})
        return json.dumps({"items": items, "prefixes": folders}).encode()

    def item(self, name: str) -> dict[str, Any]:
        host = f"http://127.0.0.1:{self.server.server_address[1]}/download/storage/v1/b/box/o/"
        link = f"{host}{name.replace('/', '%2F')}?alt=media"
        times = dict.fromkeys(("timeCreated", "updated"), "2026-01-01T00:00:00Z")
        size = str(len(self.objects[name]))
        return {"name": name, "bucket": "box", "size": size, "mediaLink": link, "generation": "1", **times}

    def answer(self, code: int, data: bytes) -> None:
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def test_a_google_bucket(tmp_path: Path) -> None:
    kinds = all_kinds(tmp_path, image_folder(tmp_path / "folder"))
    homes = [kinds["tars"], kinds["tables"], tmp_path / "folder"]
    Storage.objects = {
        str(path.relative_to(tmp_path)): path.read_bytes() for home in homes for path in home.rglob("*.*")
    }
    server = ThreadingHTTPServer(("127.0.0.1", 0), Storage)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    names = ["tars", "tars/part-{0000..0002}.tar", "tables/*.parquet", "folder/", "nothing"]
    try:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, *(f"gs://box/{name}" for name in names)],
            env={
                **os.environ,
                "STORAGE_EMULATOR_HOST": f"http://127.0.0.1:{server.server_port}",
                "FSSPEC_GS_TOKEN": "anon",
                "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
            },
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert done.returncode == 0, done.stderr
    *found, nothing = done.stdout.splitlines()
    assert found == 4 * [load(tmp_path / "folder").fingerprint]
    assert nothing.startswith(
        "MissingDataError: 'gs://box/nothing' has no files, expected a file, a folder or"
    )
