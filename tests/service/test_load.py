"""A full service says so at once, and forgets who leaves."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest

from bonaface.service.keys import hash_of
from bonaface.service.problems import Problem
from bonaface.service.work import Batcher, Places, Room
from served import Held, Server, photo

Live = Callable[..., Any]


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
    address = live(finder, max_requests=2, threads=1)
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
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(post, address)
        finder.begun.acquire(timeout=20)
        head = f"POST /v1/detect HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(photo())}\r\n"
        with socket.create_connection(address) as line:
            line.sendall(head.encode() + b"\r\n" + photo())
            until(lambda: live.core().places.taken == 2)
        until(lambda: live.core().places.taken == 1)  # although the first is still held
        finder.go.set()
        assert first.result().status_code == 200
    assert not finder.begun.acquire(blocking=False)  # the second was never looked at


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
        slow = [stack.enter_context(half_sent(address)) for _ in range(3)]
        until(lambda: places.arriving == 3)
        assert places.taken == 0
        assert places.held == 3 * (len(photo()) // 2)  # not what their headers promise
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


def test_who_would_wait_too_long_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two threads that need a tenth of a second for a picture each: 20 a second."""
    now = 0.0
    monkeypatch.setattr("bonaface.service.work.time.monotonic", lambda: now)
    places = Places(Room(99, 99, 999, 99, 999, wait=0.22), 2, lambda *_: None)

    def take(pictures: int = 1) -> ExitStack:
        held = ExitStack()
        place = held.enter_context(places.one("a", 0))
        place.accept(pictures)
        for _ in range(pictures):
            held.callback(place.done)
        return held

    running = [take()]
    for _ in range(60):  # always one more comes as one is done
        running.append(take())
        now += 0.05
        running.pop(0).close()
    running += [take() for _ in range(6)]
    # Two are judged, and the last of the others begins in a quarter of a second.
    with pytest.raises(Problem) as problem:
        take()
    assert (problem.value.status, problem.value.headers["Retry-After"]) == (503, "1")
    running.pop().close()
    running.append(take())
    for one in running:
        one.close()
    many = take(30)  # is taken when it need not wait itself
    with pytest.raises(Problem) as problem:
        take()
    assert problem.value.status == 503
    many.close()
    assert places.taken == places.arriving == 0


def test_how_long_clips_take_tells_when_to_come_again(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("bonaface.service.work.time.monotonic", lambda: now)
    places = Places(Room(1, 9, 999, 9, 999), 1, lambda *_: None)
    for _ in range(30):  # half a minute each; a place is given back when its clip is judged
        with places.one("a", 0) as place:
            place.accept()
            now += 30
    with places.one("a", 0) as place:
        place.accept()
        with pytest.raises(Problem) as problem, places.one("b", 0):
            pass
    assert 25 < int(problem.value.headers["Retry-After"]) <= 30


def test_places_are_given_back_whatever_happens() -> None:
    told: list[tuple[int, int, int]] = []
    places = Places(Room(2, 3, 100, 2, 80), 1, lambda *now: told.append(now))

    def refused(client: str, length: int) -> int:
        with pytest.raises(Problem) as problem, places.one(client, length):
            pass
        return problem.value.status

    def take(*sizes: int, fail: bool = False) -> None:
        with places.one("a", 60) as place:
            assert places.held == 0  # a promise takes no room
            for size in sizes:
                place.grow(size)
            assert (places.arriving, places.held) == (1, max(sizes))
            place.accept()
            assert (places.arriving, places.taken) == (0, 1)
            assert refused("a", 81 - max(sizes)) == 429
            assert refused("b", 101 - max(sizes)) == 503
            with places.one("a", 0), places.one("b", 0):
                assert refused("a", 0) == 429
            with places.one("b", 0) as second, places.one("c", 0) as third:
                second.accept()
                with pytest.raises(Problem):
                    third.accept()
                assert refused("d", 0) == 503
            if fail:
                raise ZeroDivisionError

    take(50, 70)
    with pytest.raises(ZeroDivisionError):
        take(60, 70, fail=True)
    with pytest.raises(Problem):
        take(70, 81)
    assert places.taken == places.arriving == places.held == 0
    assert told[-1] == (0, 0, 0)
    assert not places._clients  # no client is remembered


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
    assert live.core()._working._value == 1  # every thread gave its turn back


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
