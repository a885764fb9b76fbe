"""What every benchmark shares: what it says of itself, how it times a process, how far repeats spread.

In: package names, commands, timings. Out: plain values. Called by the benchmarks beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

__all__ = ["facts", "parser", "run", "spread", "told"]


def facts(*packages: str) -> dict[str, Any]:
    """Date, processor, cores, load and versions."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "cpu": models[0] if models else platform.processor() or "unknown",
        "cores": os.cpu_count(),
        "load_before": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "openblas_coretype": os.environ.get("OPENBLAS_CORETYPE", "auto"),
        **{name: version(name) for name in packages},
    }


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, least and most."""
    return {
        "n": len(values),
        "median": round(statistics.median(values), 4),
        "min": round(min(values), 4),
        "max": round(max(values), 4),
    }


def parser(*, data: bool = True, repeats: int = 3) -> argparse.ArgumentParser:
    """Arguments that most benchmarks take."""
    made = argparse.ArgumentParser()
    if data:
        made.add_argument("--data", required=True, help="folder with MNIST, hymenoptera ...")
    made.add_argument("--repeats", type=int, default=repeats)
    return made


def run(command: Sequence[str], **environment: str) -> dict[str, Any]:
    """Time one process from its start to the last line it prints, which may be JSON."""
    begun, answered, lines = time.perf_counter(), 0.0, []
    with subprocess.Popen(
        command, env={**os.environ, **environment}, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            answered = time.perf_counter() - begun
            lines.append(line)
    if process.returncode:
        raise SystemExit(f"{command} ended with {process.returncode}")
    text = "".join(lines)
    for candidate in (text, lines[-1]):
        try:
            return {**json.loads(candidate), "wall_s": answered}
        except ValueError:
            continue
    return {"wall_s": answered}


def told(about: Mapping[str, Any], table: Mapping[str, Mapping[str, Any]], **last: Any) -> None:
    """Print the facts, a line for every quantity with median and range, and all of it as JSON."""
    print(", ".join(f"{name} {value}" for name, value in about.items()))
    for who, quantities in table.items():
        for name, one in quantities.items():
            print(f"{who:24} {name:28} {one['median']:>12} ({one['min']} - {one['max']}, n {one['n']})")
    for name, value in last.items():
        print(f"{name.replace('_', ' ')}: {value}")
    print(json.dumps({**about, **table, **last}))
