"""Large images take turns: what threads hold together stays within the budget, in every place that decodes."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFile

from headstart.data.checks.doctor import examine
from headstart.data.checks.seen import recognise, record
from headstart.data.images import turns
from headstart.data.images.fit import fit_images
from headstart.data.images.prepare import decode, prepare
from headstart.data.images.turns import PixelBudget
from headstart.data.readers.folders import read_folder
from headstart.data.stores import FileImages
from headstart.models.predict import _prepared
from headstart.records import InputSpec

SIDE, N_IMAGES, N_THREADS = 40, 64, 8
SPEC = InputSpec(8, 8, 3)
PATIENCE_S = 30.0


Begun = dict[int, object]


def until(condition: Callable[[], bool]) -> None:
    limit = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > limit:
            pytest.fail("it did not come about")
        time.sleep(0.001)


class Worker:
    """A thread that claims pixels in a turn and holds them until it is released."""

    def __init__(self, budget: PixelBudget, n_px: int) -> None:
        self.holds, self._release, self._done = threading.Event(), threading.Event(), threading.Event()

        def work() -> None:
            with budget.turn():
                budget.claim(n_px)
                self.holds.set()
                assert self._release.wait(PATIENCE_S)
            self._done.set()

        threading.Thread(target=work, daemon=True).start()

    def release(self) -> None:
        self._release.set()
        assert self._done.wait(PATIENCE_S)


def waiting(budget: PixelBudget, number: int) -> None:
    until(lambda: len(budget._waiting) == number)


def test_images_are_held_as_far_as_they_fit_and_in_order() -> None:
    budget = PixelBudget(10)
    first, second = Worker(budget, 6), Worker(budget, 4)
    assert first.holds.wait(PATIENCE_S) and second.holds.wait(PATIENCE_S)
    large = Worker(budget, 8)
    waiting(budget, 1)
    small = Worker(budget, 1)  # would fit as soon as one is done, but came later
    waiting(budget, 2)
    second.release()
    assert not large.holds.is_set() and not small.holds.is_set()
    first.release()
    assert large.holds.wait(PATIENCE_S) and small.holds.wait(PATIENCE_S)
    large.release()
    small.release()


def test_an_image_larger_than_the_budget_waits_until_it_is_alone() -> None:
    budget = PixelBudget(10)
    small, huge = Worker(budget, 1), Worker(budget, 1_000)
    assert small.holds.wait(PATIENCE_S)
    waiting(budget, 1)
    small.release()
    assert huge.holds.wait(PATIENCE_S)
    after = Worker(budget, 1)
    waiting(budget, 1)
    huge.release()
    assert after.holds.wait(PATIENCE_S)
    after.release()


def test_an_error_gives_the_pixels_back() -> None:
    budget = PixelBudget(10)
    for _ in range(3):
        with pytest.raises(ValueError, match="broken"), budget.turn():
            budget.claim(10)
            raise ValueError("broken")


def test_nobody_waits_for_itself() -> None:
    budget = PixelBudget(10)
    for _ in range(3):
        budget.claim(100)  # outside of a turn nothing is counted
    with budget.turn():
        budget.claim(10)
        budget.claim(10)  # two images in one turn
    with budget.turn():
        budget.claim(10)


FORKED = """
import os, threading
from headstart.data.images.turns import claim_pixels, turn
held, end = threading.Event(), threading.Event()
def hold():
    with turn():
        claim_pixels(2**27)
        held.set()
        end.wait(60)
threading.Thread(target=hold).start()
held.wait()
child = os.fork()
if not child:
    with turn():
        claim_pixels(2**27)
    os._exit(7)
status = os.waitpid(child, 0)[1]
end.set()
print(os.waitstatus_to_exitcode(status))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_has_a_budget_of_its_own() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORKED], check=True, capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "7\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(N_IMAGES):
        path = tmp_path / "data" / "ab"[number % 2] / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (SIDE, SIDE, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(path)
    return tmp_path / "data"


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Begun, threading.Event]]:
    """Eight threads, a budget of three images, and decoders that wait to be let through, noted when they begin."""
    begun: Begun = {}
    through, load = threading.Event(), ImageFile.ImageFile.load

    def waiting_load(self: Any) -> Any:
        begun[id(self)] = self  # several calls for one image
        assert through.wait(PATIENCE_S)
        return load(self)

    monkeypatch.setattr(os, "cpu_count", lambda: N_THREADS)
    monkeypatch.setattr(turns._BUDGET, "_limit_px", 3 * SIDE**2)
    turns._BUDGET.reset()
    monkeypatch.setattr(ImageFile.ImageFile, "load", waiting_load)
    yield begun, through
    monkeypatch.undo()
    turns._BUDGET.reset()


def readers(folder: Path) -> list[tuple[str, Callable[[], bytes]]]:
    return [(str(path), path.read_bytes) for path in paths(folder)]


def paths(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.png"))


def read_unchecked(folder: Path) -> Any:
    from headstart.data.dataset import Dataset

    labels = np.array(["a", "b"] * (N_IMAGES // 2))
    return Dataset("some", FileImages(paths(folder)), labels, ("a", "b"))


def prepare_files(folder: Path) -> object:
    return prepare(read_unchecked(folder), SPEC)


PLACES: dict[str, Callable[[Path], object]] = {
    "a folder is read": read_folder,
    "images are prepared": prepare_files,
    "files are predicted": lambda folder: list(_prepared(readers(folder), SPEC)),
    "a dataset is examined": lambda folder: examine(read_unchecked(folder)),
    "learned images are recorded": lambda folder: record([("learned", FileImages(paths(folder)))]),
}


@pytest.mark.parametrize("place", PLACES)
def test_no_more_images_are_decoded_at_a_time_than_fit(
    place: str, folder: Path, gate: tuple[Begun, threading.Event]
) -> None:
    begun, through = gate
    ended = threading.Event()

    def work() -> None:
        PLACES[place](folder)
        ended.set()

    threading.Thread(target=work, daemon=True).start()
    waiting(turns._BUDGET, N_THREADS - 3)
    assert len(begun) == 3, "the others wait"
    through.set()
    assert ended.wait(PATIENCE_S) and len(begun) == N_IMAGES


def test_images_that_were_seen_take_turns(folder: Path, gate: tuple[Begun, threading.Event]) -> None:
    begun, through = gate
    through.set()
    seen = record([("learned", FileImages(paths(folder)[:2]))])
    through.clear()
    begun.clear()
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(recognise(FileImages(paths(folder)), seen)))
    thread.start()
    waiting(turns._BUDGET, N_THREADS - 3)
    assert len(begun) == 3
    through.set()
    thread.join(PATIENCE_S)
    assert found[0].of("learned").sum() == 2


def test_the_turn_covers_resizing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The decoded pixels are held until they are shrunk, not only while they are decoded."""
    free: list[int] = []

    def noted(*arguments: Any) -> Any:
        free.append(turns._BUDGET._free_px)
        return fit_images(*arguments)

    monkeypatch.setattr("headstart.data.images.fit.fit_images", noted)
    prepare_files(folder)
    list(_prepared(readers(folder), SPEC))
    limit = turns._BUDGET._limit_px
    assert len(free) == 2 * N_IMAGES and all(one <= limit - SIDE**2 for one in free)
    assert turns._BUDGET._free_px == limit
    decode(paths(folder)[0])
    assert turns._BUDGET._free_px == limit
