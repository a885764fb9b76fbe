"""Requests per second and latencies of `headstart serve`, against the straightforward PyTorch peer.

In: a model folder, a folder of images or the name of a dataset. Out: a line for each server, and all of it
as JSON. Each picture is sent as one request (a form with one file, the same bytes to both); the public tool
wrk, a process of its own, keeps some connections busy. --int8 takes a second model, the same network as an int8
graph, which is served in the same run. The servers take turns, each started anew for each round. --minutes asks
ours longer and watches its memory. Only to 127.0.0.1.

python benchmarks/serve_load.py digits --model runs/digits --images mnist
python benchmarks/serve_load.py photos --model runs/bees --int8 runs/bees8 --images data/hymenoptera/val --minutes 0
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import median
from typing import Any

from machine import facts, spread

SERVE = (
    "import sys; from headstart.interfaces.http.server import serve_models; "
    "serve_models([sys.argv[1]], precision=sys.argv[2], workers=int(sys.argv[3]), port=int(sys.argv[4]))"
)
PEER = Path(__file__).with_name("torch_server.py")
BOUNDARY = "headstartloadheadstartload"
N_SENT = 32
LUA = """
local bodies = {}
for name in io.lines("%(folder)s/list") do
  local file = io.open(name, "rb"); bodies[#bodies + 1] = file:read("*a"); file:close()
end
local asked, n = 0, #bodies
wrk.method = "POST"
wrk.headers["Content-Type"] = "multipart/form-data; boundary=%(boundary)s"
request = function()
  asked = asked + 1
  return wrk.format(nil, nil, nil, bodies[asked %% n + 1])
end
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('{"requests": %%d, "seconds": %%f, "p50_ms": %%f, "p95_ms": %%f, "p99_ms": %%f, ' ..
    '"errors": %%d}\\n', summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3,
    latency:percentile(95) / 1e3, latency:percentile(99) / 1e3,
    e.connect + e.read + e.write + e.status + e.timeout))
end
"""


def script(images: Sequence[Path], folder: Path) -> Path:
    """The Lua file by which wrk sends each picture in turn."""
    names = []
    for number, picture in enumerate(images):
        head = (
            f'--{BOUNDARY}\r\ncontent-disposition: form-data; name="files"; filename="{number}"\r\n'
            "content-type: application/octet-stream\r\n\r\n"
        )
        body = folder / f"{number}.body"
        body.write_bytes(head.encode() + picture.read_bytes() + f"\r\n--{BOUNDARY}--\r\n".encode())
        names.append(f"{body}\n")
    (folder / "list").write_text("".join(names))
    made = folder / "load.lua"
    made.write_text(LUA % {"folder": folder, "boundary": BOUNDARY})
    return made


@contextmanager
def server(command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    """A server process, waited for until it answers, stopped at the end."""
    process = subprocess.Popen(command)
    try:
        port = int(re.findall(r"\d+", " ".join(command))[-1])
        for _ in range(600):
            with suppress(OSError):
                asked = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
                asked.request("GET", "/")
                asked.getresponse()
                break
            if process.poll() is not None:
                raise SystemExit(f"{command} ended with {process.returncode}")
            time.sleep(0.1)
        yield process
    finally:
        process.terminate()
        process.wait(30)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def load(url: str, lua: Path, connections: int, seconds: float) -> dict[str, float]:
    """What wrk saw."""
    command = [
        "wrk",
        "-t1",
        f"-c{connections}",
        f"-d{round(seconds)}s",
        "--timeout",
        "30s",
        "-s",
        str(lua),
        url,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    said: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return {"requests_per_s": said["requests"] / said["seconds"], **said}


def family(pid: int) -> list[int]:
    """A process and its children, which answer together."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *map(int, children)]


def cpu_s(pid: int) -> float:
    """Processor seconds a server has used: steadier than the clock where others work at the same time."""
    total = 0.0
    for one in family(pid):
        values = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        total += (int(values[11]) + int(values[12])) / os.sysconf("SC_CLK_TCK")
    return total


def rss_mb(pid: int) -> float:
    """Resident memory of a server; what its processes share is counted for each."""
    total = 0.0
    for one in family(pid):
        status = Path(f"/proc/{one}/status").read_text()
        total += int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024  # type: ignore[index]
    return total


def images(words: str, folder: Path) -> list[Path]:
    """Files to send: those of a folder, or images of a dataset written as PNG."""
    if not Path(words).is_dir():
        from PIL import Image

        from headstart.data.readers.load import load

        for number, pixels in enumerate(load(words).images.pixels[:N_SENT]):  # type: ignore[attr-defined]
            Image.fromarray(pixels[..., 0]).save(folder / f"{number:02}.png")
        words = str(folder)
    found = sorted(one for one in Path(words).rglob("*") if one.suffix in (".png", ".jpg", ".jpeg"))
    return found[:N_SENT]


def measured(command: list[str], url: str, lua: Path, asked: argparse.Namespace) -> dict[str, float]:
    """One round with one server, after one that nobody counts."""
    with server(command) as process:
        load(url, lua, asked.connections, 2)
        before = cpu_s(process.pid)
        busy = load(url, lua, asked.connections, asked.seconds)
        used = cpu_s(process.pid) - before
        alone = load(url, lua, 1, min(5, asked.seconds))
        return {
            **busy,
            "errors": busy["errors"] + alone["errors"],
            "cpu_ms_per_request": 1e3 * used / max(1, busy["requests"]),
            "alone_p50_ms": alone["p50_ms"],
            "rss_mb": rss_mb(process.pid),
        }


def summary(rounds: Sequence[dict[str, float]]) -> dict[str, Any]:
    """Median and range over the rounds."""
    return {
        **{
            key: spread([one[key] for one in rounds])
            for key in ("requests_per_s", "p50_ms", "p95_ms", "p99_ms")
        },
        "errors": sum(one["errors"] for one in rounds),
        "cpu_ms_per_request": round(median(one["cpu_ms_per_request"] for one in rounds), 3),
        "alone_p50_ms": round(median(one["alone_p50_ms"] for one in rounds), 2),
        "rss_mb": round(max(one["rss_mb"] for one in rounds)),
    }


def ours(model: str, asked: argparse.Namespace, port: str) -> list[str]:
    return [sys.executable, "-c", SERVE, f"m={model}", asked.precision, str(asked.workers), port]


def soaked(command: list[str], url: str, lua: Path, asked: argparse.Namespace) -> dict[str, Any]:
    """Memory of ours while it is asked for some minutes; a quarter of the time is not counted: pools fill."""
    with server(command) as process:
        sizes, errors, requests = [], 0.0, 0.0
        end = time.monotonic() + 60 * asked.minutes
        while time.monotonic() < end:
            one = load(url, lua, asked.connections, min(10, max(1, end - time.monotonic())))
            errors, requests = errors + one["errors"], requests + one["requests"]
            sizes.append(round(rss_mb(process.pid), 1))
        with urllib.request.urlopen(url.partition("/v1")[0] + "/healthz", timeout=5) as answer:
            assert answer.status == 200
    late = sizes[len(sizes) // 4 :]
    return {
        "minutes": asked.minutes,
        "requests": round(requests),
        "errors": errors,
        "rss_mb_first": sizes[0],
        "rss_mb_after_a_quarter": late[0],
        "rss_mb_last": sizes[-1],
        "rss_mb_most": max(sizes),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=("digits", "photos"))
    parser.add_argument("--model", required=True)
    parser.add_argument(
        "--images", required=True, help="a folder, or a dataset in memory; 32 are sent in turn"
    )
    parser.add_argument("--int8", help="a model of the same network with int8 weights, measured beside it")
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=10, help="of the longer run; 0 leaves it out")
    parser.add_argument("--precision", choices=("fp32", "bf16", "auto"), default="fp32", help="of ours")
    parser.add_argument("--workers", type=int, default=0, help="of ours; 0: one a core")
    parser.add_argument("--peers", default="def,async", help="ways the peer is written; empty leaves it out")
    asked = parser.parse_args()
    if shutil.which("wrk") is None:
        raise SystemExit("needs wrk: apt-get install wrk")
    about = facts("headstart", "openvino", "torch", "uvicorn", "fastapi")
    print(json.dumps(about))
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        lua = script(images(asked.images, Path(folder)), Path(folder))
        port = str(free_port())
        url = f"http://127.0.0.1:{port}/v1/models/m/predict"
        servers = {"headstart": (ours(asked.model, asked, port), url)}
        if asked.int8:
            servers["headstart, int8"] = ours(asked.int8, asked, port), url
        models = set(servers)
        for style in filter(None, asked.peers.split(",")):
            peer = [sys.executable, str(PEER), asked.kind, "--model", asked.model, "--style", style]
            servers[f"torch, {style}"] = [*peer, "--port", port], f"http://127.0.0.1:{port}/predict"
        rounds: dict[str, list[dict[str, float]]] = {name: [] for name in servers}
        for _ in range(asked.repeats):
            for name, (command, address) in servers.items():
                rounds[name].append(measured(command, address, lua, asked))
        for name, each in rounds.items():
            found[name] = summary(each)
            print(name, found[name], flush=True)
        rates = {name: one["requests_per_s"]["median"] for name, one in found.items()}
        peers = [rate for name, rate in rates.items() if name not in models]
        if peers:
            found["times_the_better_peer"] = round(rates["headstart"] / max(peers), 2)
            print("times the better peer:", found["times_the_better_peer"])
        if peers and asked.int8:
            found["int8_times_the_better_peer"] = round(rates["headstart, int8"] / max(peers), 2)
            print("int8 times the better peer:", found["int8_times_the_better_peer"])
        if asked.minutes:
            found["longer"] = soaked(ours(asked.model, asked, port), url, lua, asked)
            print("longer", found["longer"])
    print(json.dumps({**about, "kind": asked.kind, "connections": asked.connections, **found}))


if __name__ == "__main__":
    main()
