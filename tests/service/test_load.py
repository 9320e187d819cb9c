"""A full service says so at once, and forgets who leaves."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest

from bonaface.service import work
from bonaface.service.keys import hash_of
from bonaface.service.problems import Problem
from bonaface.service.work import Batcher, GoneError, Place, Places, Room, Turns
from served import Held, Server, photo

Live = Callable[..., Any]

pytestmark = pytest.mark.anyio  # the plugin comes with the service's own library


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end, "did not come true"
        time.sleep(0.01)


def post(address: tuple[str, int], **options: Any) -> httpx2.Response:
    return httpx2.post(
        f"http://localhost:{address[1]}/v1/detect", content=photo(), timeout=30, **options
    )


def test_without_a_place_a_request_is_told_to_come_again(live: Live) -> None:
    finder = Held()
    address = live(finder, max_requests=2, threads=2)
    with ThreadPoolExecutor(2) as pool:
        accepted = [pool.submit(post, address) for _ in range(2)]
        finder.begun.acquire(timeout=20)
        until(lambda: live.core().places.taken == 2)
        refused = post(address)  # answered while the two are still held
        assert refused.status_code == 503
        assert int(refused.headers["retry-after"]) >= 1
        assert "try again in" in refused.json()["detail"]
        assert httpx2.get(f"http://localhost:{address[1]}/healthz").status_code == 200
        finder.go.set()
        assert [one.result().status_code for one in accepted] == [200, 200]
    until(lambda: live.core().places.taken == 0)
    assert post(address).status_code == 200


def test_held_bytes_are_bounded_too(live: Live) -> None:
    finder = Held()
    address = live(finder, max_held_bytes=len(photo()) + 10)
    with ThreadPoolExecutor(1) as pool:
        accepted = pool.submit(post, address)
        finder.begun.acquire(timeout=20)
        assert post(address).status_code == 503
        finder.go.set()
        assert accepted.result().status_code == 200
    until(lambda: live.core().places.held == 0)


def test_a_client_that_leaves_frees_its_place(live: Live) -> None:
    finder = Held()
    address = live(finder, threads=1)
    part = b'--X\r\nContent-Disposition: form-data; name="file"; filename="a.jpg"\r\n\r\n'
    body = 3 * (part + photo() + b"\r\n") + b"--X--\r\n"
    head = (
        f"POST /v1/detect HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
        "Content-Type: multipart/form-data; boundary=X\r\n\r\n"
    )
    with socket.create_connection(address) as line:
        line.sendall(head.encode() + body)
        finder.begun.acquire(timeout=20)
        assert live.core().places.taken == 1
    until(lambda: live.core().places._pictures < 3)  # although the first is still held
    finder.go.set()
    until(lambda: live.core().places.taken == 0)
    assert not finder.begun.acquire(blocking=False)  # the others were never looked at


def test_the_end_finishes_what_was_accepted(live: Live) -> None:
    finder = Held()
    address = live(finder)
    with ThreadPoolExecutor(1) as pool:
        accepted = pool.submit(post, address)
        finder.begun.acquire(timeout=20)
        live.server().should_exit = True
        until(lambda: not live.server().servers[0].is_serving())
        with pytest.raises(httpx2.ConnectError):
            post(address)
        finder.go.set()
        assert accepted.result().status_code == 200


def half_sent(address: tuple[str, int]) -> socket.socket:
    """A line on which the first half of a request's body has gone out."""
    line = socket.create_connection(address, timeout=30)
    head = f"POST /v1/detect HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(photo())}\r\n\r\n"
    line.sendall(head.encode() + photo()[: len(photo()) // 2])
    return line


def test_slow_senders_keep_nobody_from_being_judged(live: Live) -> None:
    address = live(max_requests=1, stall_seconds=20, body_seconds=20)
    places = live.core().places
    with ExitStack() as stack:
        slow = []
        for at in range(1, 4):
            slow.append(stack.enter_context(half_sent(address)))
            # Not what their headers promise.
            until(lambda at=at: places.held == at * (len(photo()) // 2))  # type: ignore[misc]
        assert (places.arriving, places.taken) == (3, 0)
        assert post(address).status_code == 200
        slow[0].sendall(photo()[len(photo()) // 2 :])
        assert b" 200 " in slow[0].recv(65536).split(b"\r\n")[0]
    until(lambda: places.arriving == places.taken == places.held == 0)


def test_bodies_that_are_coming_are_bounded_too(live: Live) -> None:
    address = live(max_arriving=2, stall_seconds=20, body_seconds=20)
    with ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(half_sent(address))
        until(lambda: live.core().places.arriving == 2)
        assert post(address).status_code == 503


def test_one_client_gets_a_part_of_the_places(live: Live) -> None:
    finder = Held()
    keys = {hash_of(name): name for name in ("desk", "lab")}
    address = live(finder, max_client_requests=1, keys=keys, hosts=None)
    desk, lab = ({"authorization": f"Bearer {name}"} for name in ("desk", "lab"))
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(post, address, headers=desk)
        finder.begun.acquire(timeout=20)
        refused = post(address, headers=desk)
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) >= 1
        assert "at most 1 requests" in refused.json()["detail"]
        other = pool.submit(post, address, headers=lab)
        finder.begun.acquire(timeout=20)  # is judged at the same time
        finder.go.set()
        assert first.result().status_code == other.result().status_code == 200
    until(lambda: live.core().places.taken == 0)
    assert post(address, headers=desk).status_code == 200


async def full(some: Places, client: str = "a", length: int = 0) -> Problem:
    """What the places say when there is no room."""
    with pytest.raises(Problem) as problem:
        async with some.one(client, length, ALL):
            pass
    return problem.value


ALL = Fraction(1)  # of the room


def places(**changes: Any) -> Places:
    """Room for much more than the threads can do."""
    return Places(replace(Room(99, 99, 999, 99, 999, wait=30), **changes), lambda *_: None)


async def test_who_comes_too_early_waits_for_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work, "_KEPT", 30)
    some = places()
    began: list[str] = []
    ends = {name: asyncio.Event() for name in "abcd"}

    async def send(name: str) -> None:
        async with some.one(name, 0, ALL) as place:
            began.append(name)
            await place.accept()
            await ends[name].wait()
            place.done()

    tasks = []
    for name in "abcd":
        tasks.append(asyncio.create_task(send(name)))
        await asyncio.sleep(0.01)
    assert began == ["a"]
    tasks[1].cancel()  # b leaves
    for at, name in enumerate("acd"):
        assert began == list("acd")[: at + 1]
        ends[name].set()
        await asyncio.sleep(0.05)
    await asyncio.gather(*tasks, return_exceptions=True)
    assert some.taken == some.arriving == some._expected == 0
    assert not some._line


async def test_who_leaves_as_it_is_let_in_leaves_the_room_to_the_next() -> None:
    some = places()
    async with some.one("a", 0, ALL) as first:
        await first.accept()
        second, third = (asyncio.create_task(accepted(some, name)) for name in "bc")
        await asyncio.sleep(0)
        first.done()
        second.cancel()
        await third
    with pytest.raises(asyncio.CancelledError):
        await second
    assert some.arriving == some._expected == 0


async def test_while_somebody_always_waits_half_of_the_room_is_used() -> None:
    now = 0.0
    room = Room(99, 99, 999, 99, 999, wait=30)
    some = Places(room, lambda *_: None, clock=lambda: now)
    async with AsyncExitStack() as stack:
        held = [await stack.enter_async_context(some.one("a", 0, ALL / 2)) for _ in range(2)]
        for place in held:
            await place.accept()
        tasks = [asyncio.create_task(accepted(some, "b", ALL / 2)) for _ in range(2)]
        await asyncio.sleep(0)
        now += work.PRESSED + 0.01
        held[0].done()
        await asyncio.sleep(0.01)
        assert not any(task.done() for task in tasks)  # half of it is taken by the other one
        held[1].done()
        await asyncio.gather(*tasks)  # one after the other
        now += 1
        held = [await stack.enter_async_context(some.one("a", 0, ALL / 2)) for _ in range(2)]
        for place in held:
            await place.accept()
            place.done()


async def test_what_is_only_scored_takes_less_room() -> None:
    some = places(wait=0.01)
    async with AsyncExitStack() as stack:

        async def take(share: Fraction, pictures: int = 1) -> Place:
            place = await stack.enter_async_context(some.one("a", 0, share))
            await place.accept(pictures)
            return place

        held = [await take(ALL / 2)] + [await take(ALL / 16) for _ in range(8)]
        assert (await full(some)).status == 503
        held.pop().done()
        held.append(await take(ALL / 16, 30))  # whoever is let in may have more than there is room
        assert (await full(some)).status == 503
        for place in held:
            while place.pictures:
                place.done()
        assert some._busy == some._kept == some._pictures == 0


async def accepted(places: Places, client: str, share: Fraction = ALL) -> None:
    async with places.one(client, 0, share) as place:
        await place.accept()


async def test_room_is_kept_for_a_body_for_a_while_only() -> None:
    some = places()
    async with some.one("slow", 0, ALL) as slow:
        async with some.one("a", 0, ALL) as other:  # waits until the room is no longer kept
            await other.accept()
            late = asyncio.create_task(slow.accept())
            await asyncio.sleep(0.01)
            assert not late.done()
            other.done()
            await late  # which waits for room as well
        slow.done()
    assert some._expected == some._pictures == 0


async def test_how_long_clips_take_tells_when_to_come_again() -> None:
    now = 0.0
    some = Places(Room(1, 9, 999, 9, 999, 0.01), lambda *_: None, clock=lambda: now)
    for _ in range(30):  # half a minute each; a place is given back when its clip is judged
        async with some.one("a", 0, ALL) as place:
            await place.accept()
            now += 30
    async with some.one("a", 0, ALL) as place:
        await place.accept()
        problem = await full(some, "b")
    assert problem.status == 503
    assert 25 < int(problem.headers["Retry-After"]) <= 30


async def test_places_are_given_back_whatever_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work, "_KEPT", 0)
    told: list[tuple[int, int, int]] = []
    some = Places(Room(2, 3, 100, 2, 80, 0.05), lambda *now: told.append(now))

    async def refused(client: str, length: int) -> int:
        return (await full(some, client, length)).status

    async def take(*sizes: int, fail: bool = False) -> None:
        async with some.one("a", 60, ALL / 9) as place:
            assert some.held == 0  # a promise takes no room
            for size in sizes:
                place.grow(size)
            assert (some.arriving, some.held) == (1, max(sizes))
            await place.accept()
            assert (some.arriving, some.taken) == (0, 1)
            assert await refused("a", 81 - max(sizes)) == 429
            assert await refused("b", 101 - max(sizes)) == 503
            async with some.one("a", 0, ALL / 9), some.one("b", 0, ALL / 9):
                assert await refused("a", 0) == 429
            async with some.one("b", 0, ALL / 9) as second, some.one("c", 0, ALL / 9) as third:
                await second.accept()
                with pytest.raises(Problem):
                    await third.accept()
                assert await refused("d", 0) == 503
            if fail:
                raise ZeroDivisionError

    await take(50, 70)
    with pytest.raises(ZeroDivisionError):
        await take(60, 70, fail=True)
    with pytest.raises(Problem):
        await take(70, 81)
    assert some.taken == some.arriving == some.held == 0
    assert told[-1] == (0, 0, 0)
    assert not some._clients  # no client is remembered


def test_threads_work_in_the_order_in_which_they_ask() -> None:
    turns, order, stay = Turns(1), list[str](), threading.Event()
    gone = {name: threading.Event() for name in "abcd"}
    paused, back, refused = threading.Event(), threading.Event(), list[str]()

    def work(name: str) -> None:
        try:
            with turns.one(gone[name]):
                order.append(name)
                if name == "a":
                    with turns.paused():
                        paused.set()
                        back.wait(20)
                    order.append("a again")
                elif name == "b":
                    stay.wait(20)
        except GoneError:
            refused.append(name)

    with ThreadPoolExecutor(4) as pool:
        pool.submit(work, "a")
        assert paused.wait(20)
        for at, name in enumerate("bcd"):
            pool.submit(work, name)
            until(lambda at=at: order == ["a", "b"] and len(turns._line) == at)  # type: ignore[misc]
        back.set()
        until(lambda: order == ["a", "b", "a again"])  # beside b
        gone["c"].set()
        until(lambda: refused == ["c"])
        stay.set()
    assert order == ["a", "b", "a again", "d"]
    assert turns._free == 1


def test_crops_of_several_threads_are_scored_together() -> None:
    sizes: list[int] = []
    go = threading.Event()

    def logits(crops: Any) -> np.ndarray:
        go.wait(20)
        return np.array([float(crop) for crop in crops])

    batcher = Batcher(logits, 8, 0.05, sizes.append)
    with ThreadPoolExecutor(8) as pool:
        found = [pool.submit(batcher, [at, at + 0.5]) for at in range(8)]
        go.set()
        assert [one.result().tolist() for one in found] == [[at, at + 0.5] for at in range(8)]
    batcher.close()
    assert sum(sizes) == 16
    assert max(sizes) >= 8


def test_a_batch_is_larger_than_the_threads_that_work(live: Live) -> None:
    """Who waits for a score lets another one decode."""
    address = live(threads=1, batch_seconds=0.2)
    sizes: list[int] = []
    live.core()._batcher._told = sizes.append
    files = [("file", (f"{at}.jpg", photo())) for at in range(8)]
    answer = httpx2.post(f"http://localhost:{address[1]}/v1/detect", files=files, timeout=30)
    assert answer.status_code == 200
    assert sum(sizes) == 8
    assert max(sizes) > 1
    assert live.core()._turns._free == 1  # every thread gave its turn back


def test_one_that_fails_fails_alone() -> None:
    began = threading.Barrier(3)

    def logits(crops: Any) -> np.ndarray:
        if "bad" in crops:
            raise ValueError
        return np.zeros(len(crops))

    def ask(crop: str) -> np.ndarray:
        began.wait(20)
        return batcher([crop])  # type: ignore[list-item]

    batcher = Batcher(logits, 3, 5, lambda _: None)
    with ThreadPoolExecutor(3) as pool:
        good, bad, also = [pool.submit(ask, crop) for crop in ("good", "bad", "also")]
        assert good.result().tolist() == also.result().tolist() == [0]
        with pytest.raises(ValueError):
            bad.result()
    batcher.close()


def children(process: int) -> set[int]:
    found = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    lines = {int(one): Path(f"/proc/{one}/cmdline").read_bytes() for one in found}
    return {one for one, line in lines.items() if b"spawn_main" in line}


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="reads Linux' /proc")
def test_workers_share_a_port_and_survive_each_other(serve: Callable[..., Server]) -> None:
    server = serve("--workers", "2")
    until(lambda: len(children(server.process.pid)) == 2)
    for _ in range(6):
        with httpx2.Client(base_url=server.url, timeout=30) as client:  # a connection of its own
            assert client.post("/v1/detect", content=photo()).status_code == 200
    figures = server.client.get("/metrics").text
    assert 'bonaface_accepted{kind="photos"} 0.0' in figures
    count = [line for line in figures.splitlines() if 'route="/v1/detect"' in line]
    total = [line for line in count if line.startswith("bonaface_requests_total")]
    assert sum(float(line.split()[-1]) for line in total) == 6  # of both together
    first = min(children(server.process.pid))
    os.kill(first, signal.SIGKILL)

    def answered() -> bool:
        try:
            with httpx2.Client(base_url=server.url, timeout=30) as client:
                return client.post("/v1/detect", content=photo()).status_code == 200
        except httpx2.HTTPError:
            return False

    until(answered)
    until(lambda: len(children(server.process.pid) - {first}) == 2)  # and it is replaced
    server.end()
    server.process.wait(30)
