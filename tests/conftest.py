"""What every test gets: a cache folder of its own, and real data where the machine has it."""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from command import ERROR, Run, Said, contents
from headstart.data.dataset import Dataset
from headstart.data.readers.load import load
from headstart.system.runners import local


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "mnist: needs MNIST under $HEADSTART_DATA; skipped elsewhere")
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # what a shell starts in the background is deaf
        signal.signal(signal.SIGINT, signal.default_int_handler)


LONG = (
    *(
        "test_the_demo_",
        "test_seeds_give_the_same_",
        "test_trials_are_the_same_",
        "test_memory_does_not_grow_",
    ),
    *(
        "test_run_the_first_recipe_whole",
        "test_no_photo_of_the_test_set_",
        "test_every_command_on_bundled_data_",
    ),
)
"""Tests of 15 seconds and more: they begin first, so that no process waits for one of them at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: not item.name.startswith(LONG))


@pytest.fixture(scope="session")
def _caches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """New names in a folder of their own: mktemp looks through the folders of all tests before, each time."""
    home = tmp_path_factory.mktemp("caches")
    return (home / str(number) for number in count())


@pytest.fixture(autouse=True)
def _own_cache(_caches: Iterator[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """No test finds what another one, or the user, has stored."""
    cache = next(_caches)
    cache.mkdir()
    monkeypatch.setenv("HEADSTART_CACHE", str(cache))
    monkeypatch.delenv("HEADSTART_CACHE_LIMIT_GB", raising=False)


@pytest.fixture(autouse=True, scope="session")
def _own_fonts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The command line points matplotlib at the cache, which each test has anew; one font list is enough."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MPLCONFIGDIR", str(tmp_path_factory.mktemp("matplotlib")))
        yield


@pytest.fixture(autouse=True, scope="session")
def _processes_wait() -> Iterator[None]:
    """Background processes that are idle stay for the next test that needs some: each start takes 3 s."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local, "_IDLE_S", 600)
        yield


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


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The command in this process; any exception that leaves main fails the test with its traceback."""
    from headstart.interfaces.cli import main as cli

    def runner(*words: object, stdin: str = "") -> Said:
        monkeypatch.setattr(sys, "argv", ["headstart", *map(str, words)])
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            cli.main()
        out, err = capsys.readouterr()
        return Said(int(left.value.code or 0), out, err)

    return runner


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in."""
    place = tmp_path / "desk"
    place.mkdir()
    monkeypatch.chdir(place)
    return place


@pytest.fixture
def refused(run: Run, desk: Path) -> Callable[..., Said]:
    """Status 1, one line on standard error with these words in it, nothing else said, nothing changed."""

    def check(*words: object, names: tuple[str, ...] = ()) -> Said:
        before = contents(desk)
        said = run(*words)
        assert (said.code, said.out) == (1, ""), said
        assert said.err.startswith(ERROR) and said.err.endswith("\n") and said.err.count("\n") == 1, said.err
        assert "expected" in said.err and "bug of headstart" not in said.err, said.err
        for name in names:
            assert name in said.err, said.err
        assert contents(desk) == before
        return said

    return check
