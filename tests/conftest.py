"""What every test gets: a cache folder of its own, and real data where the machine has it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from headstart.data.dataset import Dataset
from headstart.data.readers import load


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "mnist: needs MNIST under $HEADSTART_DATA; skipped elsewhere")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test finds what another one, or the user, has stored."""
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.delenv("HEADSTART_CACHE_LIMIT_GB", raising=False)


@pytest.fixture(autouse=True)
def _mnist_or_skip(request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("mnist") and not has_mnist():
        pytest.skip("needs MNIST under $HEADSTART_DATA")


def has_mnist() -> bool:
    home = os.environ.get("HEADSTART_DATA")
    return bool(home) and (Path(str(home)) / "MNIST" / "raw").is_dir()


@pytest.fixture
def real_data() -> Path:
    """The folder of real datasets."""
    home = os.environ.get("HEADSTART_DATA")
    if not home:
        pytest.skip("needs real data under $HEADSTART_DATA")
    return Path(home)


@pytest.fixture(scope="session")
def mnist() -> Dataset:
    """All of MNIST, both splits."""
    if not has_mnist():
        pytest.skip("needs MNIST under $HEADSTART_DATA")
    return load("mnist")


@pytest.fixture(scope="session")
def digits() -> Dataset:
    """1,797 handwritten digits of 8 x 8 px, bundled with scikit-learn."""
    return load("digits")
