"""Micro-batching: each request gets its own rows, batches grow with the load, a single image does not wait."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from headstart.graph.online import OnlineRun
from headstart.interfaces.http.batching import Batcher
from headstart.records import Array, Images
from tiny_model import SIZE, tiny_model


def image(value: int) -> NDArray[np.uint8]:
    return np.full((SIZE, SIZE, 1), value, np.uint8)


def means(images: Images) -> tuple[Array, ...]:
    values: Array = images.mean(axis=(1, 2, 3)).astype(np.float32)
    return (np.stack([values, -values], axis=1), values)


class Gate:
    """A network that answers when it is let."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.running = 0

    def __call__(self, images: Images) -> tuple[Array, ...]:
        self.running += 1
        assert self.open.wait(10)
        return means(images)


def ran(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(work, 20))


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


async def asked(batcher: Batcher, values: range) -> list[tuple[Array, ...]]:
    one: list[Awaitable[tuple[Array, ...]]] = [batcher.submit(image(value)) for value in values]
    return list(await asyncio.gather(*one))


@pytest.mark.parametrize("n_lanes", [1, 3])
@pytest.mark.parametrize("largest", [1, 7, 32])
def test_each_request_gets_its_own_rows(n_lanes: int, largest: int) -> None:
    sizes: list[int] = []

    async def work() -> None:
        batcher = Batcher(means, n_lanes=n_lanes, largest=largest, seen=sizes.append)
        for value, (pair, single) in enumerate(await asked(batcher, range(100))):
            assert pair.tolist() == [value, -value] and single == value
        assert not batcher.n_waiting
        batcher.close()

    ran(work())
    assert sum(sizes) == 100 and max(sizes) <= largest


def test_a_single_image_runs_alone_and_at_once() -> None:
    sizes: list[int] = []

    async def work() -> None:
        batcher = Batcher(means, seen=sizes.append)
        for value in range(3):
            await batcher.submit(image(value))
        batcher.close()

    ran(work())
    assert sizes == [1, 1, 1]


def test_images_that_arrive_meanwhile_form_the_next_batch() -> None:
    sizes: list[int] = []

    async def work() -> None:
        gate = Gate()
        batcher = Batcher(gate, largest=8, seen=sizes.append)
        first = asyncio.create_task(batcher.submit(image(0)))
        await until(lambda: gate.running == 1)
        rest = asyncio.create_task(asked(batcher, range(1, 12)))
        await until(lambda: batcher.n_waiting == 11)
        gate.open.set()
        await first
        assert [float(single) for _, single in await rest] == [*range(1, 12)]
        batcher.close()

    ran(work())
    assert sizes == [1, 8, 3]


def test_an_idle_lane_may_wait_for_more_images() -> None:
    sizes: list[int] = []

    async def work() -> None:
        batcher = Batcher(means, gather_s=0.2, seen=sizes.append)
        first = asyncio.create_task(batcher.submit(image(1)))
        await asyncio.sleep(0.01)
        await asyncio.gather(first, batcher.submit(image(2)))
        batcher.close()

    ran(work())
    assert sizes == [2]


def test_cancelled_requests_are_not_computed() -> None:
    sizes: list[int] = []

    async def work() -> None:
        gate = Gate()
        batcher = Batcher(gate, seen=sizes.append)
        first = asyncio.create_task(batcher.submit(image(0)))
        await until(lambda: gate.running == 1)
        leaves, stays = (asyncio.create_task(batcher.submit(image(value))) for value in (1, 2))
        await until(lambda: batcher.n_waiting == 2)
        leaves.cancel()
        gate.open.set()
        await first
        assert (await stays)[1] == 2
        with pytest.raises(asyncio.CancelledError):
            await leaves
        batcher.close()

    ran(work())
    assert sizes == [1, 1]


def test_an_error_reaches_all_of_its_batch_and_no_other() -> None:
    def moody(images: Images) -> tuple[Array, ...]:
        if (images == 13).any():
            raise RuntimeError("thirteen")
        return means(images)

    async def work() -> None:
        batcher = Batcher(moody)
        said = await asyncio.gather(
            *(batcher.submit(image(value)) for value in (1, 13)), return_exceptions=True
        )
        assert [str(one) for one in said] == ["thirteen", "thirteen"]
        assert (await batcher.submit(image(5)))[1] == 5
        batcher.close()

    ran(work())


def test_closing_cancels_waiting_images() -> None:
    async def work() -> None:
        gate = Gate()
        batcher = Batcher(gate)
        first = asyncio.create_task(batcher.submit(image(0)))
        await until(lambda: gate.running == 1)
        second = asyncio.create_task(batcher.submit(image(1)))
        await until(lambda: batcher.n_waiting == 1)
        batcher.close()
        gate.open.set()
        await first
        with pytest.raises(asyncio.CancelledError):
            await second

    ran(work())


@pytest.mark.parametrize("n_images", [1, 2, 5, 33, 1])
def test_a_network_answers_any_number_of_images(n_images: int) -> None:
    run = OnlineRun(tiny_model(novelty=True).graph)
    images = np.random.default_rng(n_images).integers(0, 256, (n_images, SIZE, SIZE, 1), dtype=np.uint8)
    probabilities, novelty = run(images)
    light = images.mean(axis=(1, 2, 3)) / 255
    np.testing.assert_allclose(probabilities, np.stack([1 - light, light], axis=1), atol=1e-5)
    np.testing.assert_allclose(novelty, 2 * light, atol=1e-5)


def test_threads_share_a_network() -> None:
    run = OnlineRun(tiny_model().graph, n_lanes=2)
    found: dict[int, float] = {}

    def ask(value: int) -> None:
        for _ in range(20):
            found[value] = float(run(image(value)[None])[0][0, 1])

    threads = [threading.Thread(target=ask, args=(value,)) for value in range(0, 250, 50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert found == pytest.approx({value: value / 255 for value in range(0, 250, 50)}, abs=1e-5)
