"""The metrics of /metrics: of this process, or of all workers together.

Apart because prometheus_client decides on import whether metrics are shared with other processes (by
PROMETHEUS_MULTIPROC_DIR, which `workers` sets for its children).
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from operator import add
from pathlib import Path

import prometheus_client as prometheus
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from headstart.errors import SettingError

__all__ = ["CONTENT_TYPE", "ServerMetrics"]

CONTENT_TYPE = prometheus.CONTENT_TYPE_LATEST
_SHARED = "PROMETHEUS_MULTIPROC_DIR"
_KINDS, _FILE_BYTES = ("counter", "histogram", "gauge_livesum"), 2**18  # ten times what 9 routes need
_ALIVE = re.compile(r"gauge_livesum_(\d+)\.db")


class ServerMetrics:
    """The server's metrics, in their own registry, so that two applications in one process do not mix."""

    def __init__(self) -> None:
        self._registry = registry = prometheus.CollectorRegistry()
        if shared := os.environ.get(_SHARED):
            _reserve(Path(shared))
        self._requests = prometheus.Counter(
            "headstart_requests", "Requests answered.", ("route", "status"), registry=registry
        )
        self._seconds = prometheus.Histogram(
            "headstart_request_seconds",
            "From a request's header to the end of its answer.",
            ("route",),
            registry=registry,
            buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30),
        )
        self._batches = prometheus.Histogram(
            "headstart_batch_images",
            "Images that went through a network together.",
            ("model",),
            registry=registry,
            buckets=(1, 2, 4, 8, 16, 32),
        )
        self._waiting = prometheus.Gauge(
            "headstart_waiting_images",
            "Images being unpacked or waiting.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._of_route: dict[tuple[str, int], tuple[prometheus.Counter, prometheus.Histogram]] = {}
        self._exported = registry
        if shared:
            self._exported = prometheus.CollectorRegistry()
            MultiProcessCollector(self._exported, path=shared)  # type: ignore[no-untyped-call]
            self._exported.register(_Processes(Path(shared)))
        else:
            prometheus.ProcessCollector(registry=registry)

    def request(self, route: str, status: int, seconds: float) -> None:
        """Count a finished request."""
        key = (route, status)  # of few: routes are patterns
        if key not in self._of_route:
            self._of_route[key] = self._requests.labels(route, str(status)), self._seconds.labels(route)
        count, times = self._of_route[key]
        count.inc()
        times.observe(seconds)

    def batches(self, model: str) -> Callable[[int], None]:
        """A function that records the size of every batch of a model."""
        return self._batches.labels(model).observe

    @contextmanager
    def waiting(self, n_images: int) -> Iterator[None]:
        """Count images as waiting for the duration of a block."""
        self._waiting.inc(n_images)
        try:
            yield
        finally:
            self._waiting.dec(n_images)

    def text(self) -> bytes:
        """All metrics in Prometheus' format."""
        return prometheus.generate_latest(self._exported)


class _Processes(Collector):
    """Memory, CPU time and files of all live workers: sums, and the earliest start."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def collect(self) -> Iterable[Metric]:
        sums: dict[str, Metric] = {}
        for file in self._folder.iterdir():
            if found := _ALIVE.fullmatch(file.name):  # the parent removes it after its worker has died
                pid = partial(int, found[1])
                for metric in prometheus.ProcessCollector(pid=pid, registry=None).collect():
                    _add(sums.setdefault(metric.name, metric), metric)
        return sums.values()


def _reserve(folder: Path) -> None:
    """Make the files of this process's metrics, so that the disk cannot be full when they are written.

    prometheus_client maps files with holes, and a process that writes to a hole of a full disk is killed.
    """
    try:
        for kind in _KINDS:
            path = folder / f"{kind}_{os.getpid()}.db"
            if not path.exists():  # else it is that of a dead worker, whose counts go on
                path.write_bytes(bytes(_FILE_BYTES))
    except OSError as error:
        raise SettingError(
            f"temporary folder is full or cannot be written ({error.strerror}), expected space for metrics; "
            "free some, set TMPDIR, or use --workers 1"
        ) from error


def _add(total: Metric, one: Metric) -> None:
    if total is one:
        return
    join = min if one.name.endswith("start_time_seconds") else add
    total.samples = [
        mine._replace(value=join(mine.value, other.value))
        for mine, other in zip(total.samples, one.samples, strict=True)
    ]
