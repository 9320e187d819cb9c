"""What the figures are measured on: the machine, how busy it is, its energy and its memory."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from bonaface.runtimes import processor_count

POWERCAP: Final = Path("/sys/class/powercap")
BUSY: Final = 0.25  # of the cores
_STATUS: Final = Path("/proc/self/status")
_CPUINFO: Final = Path("/proc/cpuinfo")


@dataclass(frozen=True, slots=True)
class Machine:
    """What figures were measured on.

    Attributes:
        processor: its name; None: the system does not say.
        cores: that the process may use.
        load: average number of running processes in the minute before; None: not known.
        system: operating system.
        versions: of the libraries.
    """

    processor: str | None
    cores: int
    load: float | None
    system: str
    versions: dict[str, str]

    @property
    def busy(self) -> bool:
        """Whether others use so much of it that times are not to be relied on."""
        return self.load is not None and self.load > BUSY * self.cores


def this_machine(libraries: Iterable[str]) -> Machine:
    """The machine as it is now; of the libraries, those that are installed."""
    versions = {"python": platform.python_version()}
    for name in libraries:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return Machine(
        processor=_processor(),
        cores=processor_count(),
        load=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        system=platform.platform(),
        versions=versions,
    )


def _processor() -> str | None:
    if _CPUINFO.is_file():
        for line in _CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or None


def peak_memory() -> float | None:
    """Most memory that this process has held since it began, in MiB; None: not known."""
    if _STATUS.is_file():
        for line in _STATUS.read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    if sys.platform == "win32":
        return None
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / 2**20 if sys.platform == "darwin" else most / 1024


class Energy:
    """Reads what the processor packages have used, from Linux's powercap (RAPL).

    Args:
        root: of the zones.

    Attributes:
        reason: why it cannot be read; None: it can.
    """

    def __init__(self, root: Path = POWERCAP) -> None:
        # Zones with one number are packages; those with two are parts of them.
        zones = [path for path in sorted(root.glob("*-rapl:*")) if path.name.count(":") == 1]
        self._zones = [zone for zone in zones if (zone / "energy_uj").is_file()]
        self.reason: str | None = None
        if not self._zones:
            self.reason = f"there is no {root}/*-rapl:* on this machine"
            return
        try:
            self._wraps = [int((zone / "max_energy_range_uj").read_text()) for zone in self._zones]
            self.read()
        except (OSError, ValueError) as error:
            self.reason = f"{type(error).__name__}; only the administrator may read it"

    def read(self) -> list[int]:
        """The counters now, in microjoules; empty where they cannot be read."""
        if self.reason:
            return []
        return [int((zone / "energy_uj").read_text()) for zone in self._zones]

    def used(self, before: list[int], after: list[int]) -> float | None:
        """Joules between two readings of all packages, with all that ran on them."""
        if not before:
            return None
        # A counter that has passed its end begins at 0 again.
        used = (
            b - a if b >= a else b - a + wrap
            for a, b, wrap in zip(before, after, self._wraps, strict=True)
        )
        return sum(used) / 1e6
