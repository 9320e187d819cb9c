"""How many are refused when requests come at random: ``python benchmarks/arrivals.py``.

h2load sends at even distances, as people do not. Here requests come at random (Poisson) to a
service that lets them in as `bonaface.service.work` does: some photos are at work, some wait (none
of them while the line at the door is never empty), and who finds no room waits a moment at the
door. A simulation: only the time of a photo is measured.
"""

from __future__ import annotations

import argparse
import heapq
import random
from collections import deque

from bonaface.service.settings import Settings
from bonaface.service.work import PRESSED
from table import Row, as_markdown

WAIT = Settings().max_wait_seconds


def simulate(
    load: float, photo: float, threads: int, waiting: int, requests: int, seed: int = 0
) -> tuple[float, float, float]:
    """Share refused, and p50 and p99 of the accepted in seconds.

    Args:
        load: of what the threads can do.
        photo: seconds that a thread needs for one, give or take 15 %.
        threads: that work.
        waiting: photos that may wait for a thread.
        requests: that come.
        seed: of everything random.
    """
    rng = random.Random(seed)
    events: list[tuple[float, str, int]] = []
    now, came = 0.0, []
    for at in range(requests):
        now += rng.expovariate(load * threads / photo)
        came.append(now)
        heapq.heappush(events, (now, "comes", at))
    door, queue, busy, refused, took = deque[int](), deque[int](), 0, 0, list[float]()
    empty = 0.0
    while events:
        now, what, at = heapq.heappop(events)
        if what == "comes":
            if not door:
                empty = now
            door.append(at)
            heapq.heappush(events, (now + WAIT, "tires", at))
        elif what == "done":
            busy -= 1
            took.append(now - came[at])
        elif at in door:
            door.remove(at)
            refused += 1
        most = threads + (waiting if now - empty <= PRESSED else 0)
        while door and busy + len(queue) < most:
            queue.append(door.popleft())
        while queue and busy < threads:
            busy += 1
            end = now + photo * rng.uniform(0.85, 1.15)
            heapq.heappush(events, (end, "done", queue.popleft()))
    took.sort()
    return refused / requests, took[len(took) // 2], took[int(0.99 * len(took))]


def main() -> None:
    """Simulate, and print a table."""
    parser = argparse.ArgumentParser(description="Random arrivals at `bonaface serve`, simulated.")
    parser.add_argument("--photo", type=float, default=0.133, help="seconds of a thread for one")
    parser.add_argument("--threads", type=int, default=Settings().threads)
    parser.add_argument("--requests", type=int, default=100_000)
    given = parser.parse_args()
    rows = []
    for waiting in (0, given.threads, 2 * given.threads):
        for load in (0.5, 0.7, 0.9, 3.0):
            refused, middle, high = simulate(
                load, given.photo, given.threads, waiting, given.requests
            )
            part = f"{waiting} may wait, {load:.0%} load"
            rows += [
                Row(part, "refused", "%", (100 * refused,)),
                Row(part, "p50 of the accepted", "ms", (1000 * middle,)),
                Row(part, "p99 of the accepted", "ms", (1000 * high,)),
            ]
    print(as_markdown(rows))


if __name__ == "__main__":
    main()
