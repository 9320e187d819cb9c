"""The service under load over loopback: ``python benchmarks/serving.py BUNDLE [--out FILE.json]``.

The load comes from h2load (nghttp2; Debian: nghttp2-client), which shares the cores with the
service: what the client takes, the service lacks. benchmarks/README.md says what the rows mean.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from bonaface.bench.rounds import interleave, ratios
from bonaface.bundle import load_bundle
from bonaface.detector import Detector
from bonaface.files import write_json, write_text
from bonaface.images import read_image
from bonaface.service.settings import Settings
from broken import broken_uploads
from photos import photo
from pictures import jpegs
from table import Row, as_markdown, as_rich, machine

SCHEMA_VERSION = 1
BATCH = Settings().batch
QUEUE = Settings().max_requests
SIDE = 256  # of the crops, in pixels
LOAD = 0.7  # of the capacity, at which latency is looked at
OVERLOAD = 3.0


@dataclass(frozen=True, slots=True)
class Body:
    """What is sent: a file, its content type, and options of the address."""

    file: Path
    kind: str
    query: str = ""


@dataclass(frozen=True, slots=True)
class Load:
    """What became of the requests of one run.

    Attributes:
        seconds: between the first and the last of them.
        sent: how many.
        taken: milliseconds that the answers took, by status.
    """

    seconds: float
    sent: int
    taken: dict[int, list[float]]

    def count(self, status: int) -> int:
        """Answers of this status."""
        return len(self.taken.get(status, []))

    @property
    def unanswered(self) -> int:
        """Requests that were neither judged nor told to come again."""
        return self.sent - self.count(200) - self.count(503)

    def rate(self, status: int = 200) -> float:
        """Answers a second."""
        return self.count(status) / self.seconds

    def percentile(self, share: float, status: int = 200) -> float:
        """Milliseconds within which that share was answered; infinite where nothing was."""
        found = sorted(self.taken.get(status, []))
        return found[min(len(found) - 1, math.ceil(share * len(found)) - 1)] if found else math.inf


class Service:
    """`bonaface serve` in processes of its own."""

    def __init__(self, bundle: Path, folder: Path, *arguments: str) -> None:
        self._log = folder / f"serve-{time.monotonic_ns()}.log"
        command = [sys.executable, "-m", "bonaface", "serve", "--model", str(bundle)]
        command += ["--port", "0", "--rate", "0", "--per-client", str(QUEUE), *arguments]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(command, stderr=log)
        self.url = self._ready()

    def _ready(self) -> str:
        while self.process.poll() is None:
            found = re.search(r"running on (http://[\w.:]+)", self._log.read_text())
            if found and asked(f"{found[1]}/readyz") == 200:
                return found[1]
            time.sleep(0.1)
        raise RuntimeError(f"did not start:\n{self._log.read_text()}")

    def workers(self) -> list[int]:
        """Process numbers, where there are several."""
        me = self.process.pid
        found = Path(f"/proc/{me}/task/{me}/children").read_text().split()
        lines = {int(one): Path(f"/proc/{one}/cmdline").read_bytes() for one in found}
        return [one for one, line in lines.items() if b"spawn_main" in line]

    def memory(self) -> float:
        """Anonymous memory of the (only) process in MiB: what has no file behind it."""
        text = Path(f"/proc/{self.process.pid}/smaps_rollup").read_text()
        found = re.search(r"^Anonymous:\s+(\d+) kB", text, re.MULTILINE)
        assert found
        return int(found[1]) / 1024

    def close(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(90)


@contextmanager
def serving(bundle: Path, folder: Path, *arguments: str) -> Iterator[Service]:
    service = Service(bundle, folder, *arguments)
    try:
        yield service
    finally:
        service.close()


def asked(url: str, data: bytes | None = None, kind: str = "image/jpeg") -> int:
    """The status of an answer, on a connection of its own; 0: there was none."""
    headers = {"Content-Type": kind} if data else {}
    try:
        with urllib.request.urlopen(
            urllib.request.Request(url, data, headers), timeout=60
        ) as answer:
            answer.read()
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


# -- the load --


def closed(service: Service, body: Body, clients: int, seconds: float) -> Load:
    """So many clients, each of which sends the next request when it has its answer."""
    return _h2load(service, body, "-c", str(clients), "-D", str(max(1, round(seconds))))


def opened(service: Service, body: Body, rate: float, seconds: float) -> Load:
    """Requests at a fixed rate, each on a connection of its own, whether answers come or not."""
    together, period = pace(rate)
    count = max(1, round(together * 1000 * seconds / period))
    times = f"-c {count} -n {count} -r {together} --rate-period={period}ms".split()
    return _h2load(service, body, *times, sent=count)


def scattered(service: Service, body: Body, rate: float, seconds: float, seed: int = 0) -> Load:
    """Requests at random (Poisson), as of many people who know nothing of each other."""
    rng, url, data = random.Random(seed), f"{service.url}/v1/detect", body.file.read_bytes()
    taken: dict[int, list[float]] = {}

    def send(at: float) -> None:
        time.sleep(max(0.0, at - time.monotonic()))
        begun = time.monotonic()
        status = asked(url, data, body.kind)
        taken.setdefault(status, []).append(1000 * (time.monotonic() - begun))

    begun = at = time.monotonic() + 0.5
    # Far more threads than requests are under way at a time, or they would come late.
    with ThreadPoolExecutor(4 * QUEUE) as pool:
        while (at := at + rng.expovariate(rate)) < begun + seconds:
            time.sleep(max(0.0, at - 0.2 - time.monotonic()))
            pool.submit(send, at)
    return Load(time.monotonic() - begun, sum(map(len, taken.values())), taken)


def pace(rate: float) -> tuple[int, int]:
    """How many requests in a period of how many milliseconds; one, where it is 5 ms or more."""
    together = math.ceil(rate / 200)
    return together, max(1, round(1000 * together / rate))


def _h2load(service: Service, body: Body, *times: str, sent: int | None = None) -> Load:
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        command = ["h2load", "--h1", f"--log-file={log}", "-d", str(body.file)]
        command += ["-H", f"content-type: {body.kind}", *times]
        command.append(f"{service.url}/v1/detect{body.query}")
        subprocess.run(command, check=True, capture_output=True)
        load = read_log(log.read_text(), sent)
    if 200 not in load.taken:
        raise RuntimeError(f"no request was judged; give more --seconds ({' '.join(command)})")
    return load


def read_log(text: str, sent: int | None = None) -> Load:
    """What h2load wrote: microseconds since 1970, status, microseconds to the end of the answer."""
    taken: dict[int, list[float]] = {}
    times = []
    for line in text.splitlines():
        start, status, took = map(int, line.split("\t")[:3])
        taken.setdefault(status, []).append(took / 1000)
        times += [start, start + took]
    seconds = (max(times) - min(times)) / 1e6 if times else 1.0
    return Load(seconds, sent or sum(map(len, taken.values())), taken)


# -- what is measured --


def throughput(bundle: Path, folder: Path, seconds: float, rounds: int, *options: str) -> list[Row]:
    """Crops a second: the detector by itself, and the service with the same bytes, in turns."""
    files = jpegs(BATCH, SIDE)
    detector = Detector(load_bundle(bundle))
    crops = [read_image(file).pixels for file in files]
    one, many = Body(folder / "crop.jpg", "image/jpeg", "?faces=none"), _form(folder, files)
    one.file.write_bytes(files[0])
    own = f"Detector.logits, batches of {BATCH}"
    decoded = f"decoding and Detector.logits, batches of {BATCH}"
    with serving(bundle, folder, *options) as service:
        arms: dict[str, Callable[[], float]] = {
            own: lambda: _own_rate(lambda: detector.logits(crops), seconds),
            decoded: lambda: _own_rate(
                lambda: detector.logits([read_image(file).pixels for file in files]), seconds
            ),
            f"served, {BATCH} crops a request": lambda: (
                BATCH * closed(service, many, 4, seconds).rate()
            ),
            "served, one crop a request": lambda: closed(service, one, QUEUE, seconds).rate(),
        }
        found = interleave(arms, rounds)
    part = f"throughput, crops of {SIDE} px"
    rows = [Row(part, name, "crops/s", tuple(found[name])) for name in (own, decoded)]
    for name in list(arms)[2:]:
        for base in (own, decoded):
            goal = "0.8 or more" if base == decoded else ""
            shares = ratios(found[name], found[base])
            rows.append(Row(part, name, "crops/s", tuple(found[name]), base, shares, goal))
    return rows


def _form(folder: Path, files: Sequence[bytes]) -> Body:
    path = folder / "crops.form"
    head = b'--X\r\nContent-Disposition: form-data; name="file"; filename="a.jpg"\r\n\r\n'
    path.write_bytes(b"".join(head + file + b"\r\n" for file in files) + b"--X--\r\n")
    return Body(path, "multipart/form-data; boundary=X", "?faces=none")


def _own_rate(score: Callable[[], object], seconds: float) -> float:
    begun, done = time.perf_counter(), 0
    while time.perf_counter() - begun < seconds:
        score()
        done += BATCH
    return done / (time.perf_counter() - begun)


def latency(bundle: Path, folder: Path, seconds: float, *options: str) -> list[Row]:
    """A photo of one megapixel: capacity, latency below it, and what overload does."""
    body = Body(folder / "photo.jpg", "image/jpeg")
    body.file.write_bytes(photo(1))
    with serving(bundle, folder, *options) as service:
        closed(service, body, 4, max(1, seconds / 4))
        most = closed(service, body, 4, seconds).rate()
        calm = opened(service, body, LOAD * most, seconds)
        alone = opened(service, body, 0.1 * most, seconds)
        over = opened(service, body, OVERLOAD * most, seconds)
        chance = [scattered(service, body, of * most, seconds) for of in (LOAD, OVERLOAD)]
    part = "photo of 1 MP"
    rows = [Row(part, "capacity, four clients", "photos/s", (most,))]
    named = (("10 % load", alone), (f"{LOAD:.0%} load", calm), (f"{OVERLOAD:g}x overload", over))
    for name, load in named:
        middle, high = load.percentile(0.5), load.percentile(0.99)
        rows.append(Row(part, f"{name}, p50", "ms", (middle,)))
        goal = "under 4 times p50" if load is calm else ""
        rows.append(
            Row(part, f"{name}, p99", "ms", (high,), f"{name}, p50", (high / middle,), goal)
        )
    accepted, calm_p99 = over.percentile(0.99), calm.percentile(0.99)
    name = f"{OVERLOAD:g}x overload, p99 of the accepted"
    base = f"{LOAD:.0%} load, p99"
    rows.append(Row(part, name, "ms", (accepted,), base, (accepted / calm_p99,)))
    rows += [
        Row(part, f"{OVERLOAD:g}x overload, answered 200", "photos/s", (over.rate(),)),
        Row(part, f"{OVERLOAD:g}x overload, answered 503", "requests", (over.count(503),)),
        Row(
            part,
            f"{OVERLOAD:g}x overload, not answered",
            "requests",
            (over.unanswered,),
            goal="0",
        ),
    ]
    for what, share in (("p50", 0.5), ("p99", 0.99), ("slowest", 1.0)):
        took = over.percentile(share, 503)
        if over.count(503):
            rows.append(
                Row(part, f"503 at {OVERLOAD:g}x, {what}", "ms", (took,), goal="within 100 ms")
            )
    return rows + _by_chance(part, *chance)


def _by_chance(part: str, calm: Load, over: Load) -> list[Row]:
    names = (f"{LOAD:.0%} load, at random", f"{OVERLOAD:g}x overload, at random")
    rows = []
    for name, load in zip(names, (calm, over), strict=True):
        rows += [
            Row(part, f"{name}, p50", "ms", (load.percentile(0.5),)),
            Row(part, f"{name}, answered 503", "share", (load.count(503) / load.sent,)),
            Row(part, f"{name}, not answered", "requests", (load.unanswered,), goal="0"),
        ]
    high = [load.percentile(0.99) for load in (calm, over)]
    base = f"{names[0]}, p99"
    return [
        *rows,
        Row(part, base, "ms", (high[0],), f"{names[0]}, p50", (high[0] / calm.percentile(0.5),)),
        Row(part, f"{names[1]}, p99 of the accepted", "ms", (high[1],), base, (high[1] / high[0],)),
    ]


def growth(bundle: Path, folder: Path, minutes: float) -> tuple[list[Row], list[float]]:
    """Memory while crops, photos of two sizes and broken files come in turn, and its course."""
    large = photo(4)
    files = {"small": photo(1), "large": large, "broken": large[: len(large) // 2]}
    bodies = [Body(folder / f"{name}.jpg", "image/jpeg") for name in files]
    for body, data in zip(bodies, files.values(), strict=True):
        body.file.write_bytes(data)
    seen: list[float] = []
    # All four clients are to be taken in, for that takes the most memory.
    with serving(bundle, folder, "--wait", "60") as service:
        over = threading.Event()

        def look() -> None:
            while not over.wait(0.5):
                seen.append(service.memory())

        watcher = threading.Thread(target=look)
        watcher.start()
        end, turn = time.monotonic() + 60 * minutes, 0
        while time.monotonic() < end:
            closed(service, bodies[turn % len(bodies)], 4, min(15, 10 * minutes))
            turn += 1
        over.set()
        watcher.join()
    return halves(seen, f"memory, {minutes:g} minutes"), seen


def halves(seen: Sequence[float], part: str) -> list[Row]:
    """Memory in the second half against the first, without the first tenth of all."""
    first, second = seen[len(seen) // 10 : len(seen) // 2], seen[len(seen) // 2 :]
    rows = []
    for what, of in (("median", statistics.median), ("most", max)):
        before, after = of(first), of(second)
        rows.append(Row(part, f"anonymous, first half, {what}", "MiB", (before,)))
        base = f"anonymous, first half, {what}"
        rows.append(
            Row(
                part,
                f"anonymous, second half, {what}",
                "MiB",
                (after,),
                base,
                (after / before,),
                "no growth",
            )
        )
    return rows


def broken(
    bundle: Path, folder: Path, count: int, clients: int = 4
) -> tuple[list[Row], list[float]]:
    """Uploads that are no good: how they are answered, and memory while they come."""
    waiting = broken_uploads(count)
    lock, found, seen = threading.Lock(), Counter[int](), []
    with serving(bundle, folder) as service:

        def client() -> None:
            while True:
                with lock:
                    upload = next(waiting, None)
                    seen.append(service.memory())
                if upload is None:
                    return
                kind, body = upload
                while (status := asked(f"{service.url}/v1/detect", body, kind)) in {429, 503}:
                    time.sleep(0.2)
                found[status] += 1

        with ThreadPoolExecutor(clients) as pool:
            for one in [pool.submit(client) for _ in range(clients)]:
                one.result()
        healthy = asked(f"{service.url}/v1/detect", photo(1))
    part = f"{count:,} broken uploads"
    wrong = sum(n for status, n in found.items() if status == 0 or status >= 500)
    rows = [
        Row(part, "answered by a verdict (200)", "requests", (found[200],)),
        Row(part, "refused (4xx)", "requests", (sum(found.values()) - found[200] - wrong,)),
        Row(part, "5xx, or no answer", "requests", (wrong,), goal="0"),
        Row(part, "a sound photo afterwards, status", "", (healthy,), goal="200"),
    ]
    return rows + halves(seen, part), seen


def killed(bundle: Path, folder: Path, seconds: float, clients: int = 4) -> list[Row]:
    """What is lost when one of two workers is killed, and until it is replaced."""
    data = photo(1)
    answers: list[tuple[float, float, int]] = []
    with serving(bundle, folder, "--workers", "2") as service:
        end = time.monotonic() + seconds

        def client() -> None:
            while (start := time.monotonic()) < end:
                status = asked(f"{service.url}/v1/detect", data)
                answers.append((start, time.monotonic(), status))

        with ThreadPoolExecutor(clients) as pool:
            running = [pool.submit(client) for _ in range(clients)]
            time.sleep(seconds / 2)
            first = service.workers()[0]
            os.kill(first, signal.SIGKILL)
            at = time.monotonic()
            while len([one for one in service.workers() if one != first]) < 2:
                time.sleep(0.05)
            replaced = time.monotonic() - at
            for one in running:
                one.result()
    return told_of_kill(answers, at, replaced)


def told_of_kill(
    answers: Sequence[tuple[float, float, int]], at: float, replaced: float
) -> list[Row]:
    """Rows from (start, end, status) of each request and the moment of the kill."""
    part = "kill -9 of one of two workers"
    lost = [start for start, _, status in answers if status not in {200, 503}]
    flying = sum(start < at < end for start, end, _ in answers)
    return [
        Row(part, "sent in all", "requests", (len(answers),)),
        Row(
            part,
            "told to come again (503)",
            "requests",
            (sum(status == 503 for *_, status in answers),),
        ),
        Row(part, "under way at the kill, of both workers", "requests", (flying,)),
        Row(part, "lost, sent before the kill", "requests", (sum(start < at for start in lost),)),
        Row(
            part, "lost, sent after it", "requests", (sum(start >= at for start in lost),), goal="0"
        ),
        Row(part, "until another process has its place", "s", (replaced,)),
    ]


def main() -> None:
    """Measure, print a table, and write it."""
    parser = argparse.ArgumentParser(description="Load on `bonaface serve`; needs h2load.")
    parser.add_argument("bundle", type=Path, help="folder of a detector")
    parser.add_argument("--seconds", type=float, default=30, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3, help="of the throughput")
    parser.add_argument("--minutes", type=float, default=0, help="of load while memory is watched")
    parser.add_argument("--wait", help="as of `bonaface serve`, for throughput and latency")
    parser.add_argument("--broken", type=int, default=0, help="uploads that are no good")
    parser.add_argument("--only", choices=("throughput", "latency", "memory", "broken", "kill"))
    parser.add_argument("--out", type=Path, help="write FILE.json, and FILE.md beside it")
    given = parser.parse_args()
    if shutil.which("h2load") is None:
        parser.error("expected h2load, got none; install nghttp2-client (Debian) or nghttp2")
    options = ("--wait", given.wait) if given.wait else ()
    before, rows, course = machine(), [], []
    with tempfile.TemporaryDirectory(prefix="bonaface-serving-") as name:
        folder = Path(name)
        if given.only in (None, "throughput"):
            rows += throughput(given.bundle, folder, given.seconds, given.rounds, *options)
        if given.only in (None, "latency"):
            rows += latency(given.bundle, folder, given.seconds, *options)
        if given.minutes and given.only in (None, "memory"):
            found, course = growth(given.bundle, folder, given.minutes)
            rows += found
        if given.broken and given.only in (None, "broken"):
            found, course = broken(given.bundle, folder, given.broken)
            rows += found
        if given.only in (None, "kill"):
            rows += killed(given.bundle, folder, given.seconds)
    console = Console(width=None if Console().is_terminal else 200)
    console.print(as_rich(rows))
    console.print("Client and service share the cores of this machine.")
    if given.out:
        value = {
            "schema_version": SCHEMA_VERSION,
            "detector": load_bundle(given.bundle).card.name,
            "seconds": given.seconds,
            "client_shares_cores": True,
            "machine": before,
            "rows": [row.to_dict() for row in rows],
            "anonymous_mib": course,
        }
        write_json(given.out, value)
        write_text(given.out.with_suffix(".md"), as_markdown(rows))


if __name__ == "__main__":
    main()
