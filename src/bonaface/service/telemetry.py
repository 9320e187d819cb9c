"""Figures for Prometheus and log lines in JSON; neither holds a picture, a file name or a key."""

from __future__ import annotations

import json
import logging
import os
import time
from pathlib import Path
from typing import Any, Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
    multiprocess,
)

from bonaface.service.jobs import alive

LOG: Final = logging.getLogger("bonaface.service")
_SHARED: Final = "PROMETHEUS_MULTIPROC_DIR"  # where workers add up their figures


class JsonFormatter(logging.Formatter):
    """One JSON object a line; what a record was given under `extra={"fields": ...}` is in it."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{int(record.msecs):03}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def log_config() -> dict[str, Any]:
    """For `logging.config`: everything to stderr as JSON."""
    loggers = ("uvicorn", "uvicorn.error", LOG.name)
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"json": {"()": "bonaface.service.telemetry.JsonFormatter"}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "json"}},
        "loggers": {
            name: {"handlers": ["stderr"], "level": "INFO", "propagate": False} for name in loggers
        },
    }


class Metrics:
    """The figures of one process."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        own: dict[str, Any] = {"registry": self._registry, "namespace": "bonaface"}
        self.requests = Counter(
            "requests", "Requests that were answered.", ["route", "method", "status"], **own
        )
        self.seconds = Histogram(
            "request_seconds",
            "From the first byte of a request to the last of its answer.",
            ["route"],
            buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
            **own,
        )
        self.answers = Counter("answers", "Pictures and clips, by answer.", ["answer"], **own)
        self.faces = Counter("faces", "Faces and people that were found.", **own)
        self.batches = Histogram(
            "batch_crops",
            "Crops that were scored together.",
            buckets=(1, 2, 4, 8, 16, 32, 64, 128),
            **own,
        )
        live: dict[str, Any] = {"multiprocess_mode": "livesum", **own}
        self.taken = Gauge(
            "accepted", "Whose bodies have come, and that are not judged.", ["kind"], **live
        )
        self.arriving = Gauge("arriving", "Whose bodies are still coming.", ["kind"], **live)
        self.held = Gauge("held_bytes", "Bytes of the bodies of both.", ["kind"], **live)

    def places(self, kind: str, taken: int, arriving: int, held: int) -> None:
        """Set how many requests of a kind are accepted and arriving, and the bytes they hold."""
        self.taken.labels(kind).set(taken)
        self.arriving.labels(kind).set(arriving)
        self.held.labels(kind).set(held)

    def text(self) -> bytes:
        """In Prometheus' text format; of all workers, where there are several."""
        if _SHARED not in os.environ:
            return generate_latest(self._registry)
        for path in Path(os.environ[_SHARED]).glob("gauge_live*.db"):
            worker = int(path.stem.rpartition("_")[2])
            if not alive(worker):  # what it held is free
                multiprocess.mark_process_dead(worker)  # type: ignore[no-untyped-call]
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry)
