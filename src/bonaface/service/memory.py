"""Gives back to the system what is free: glibc keeps what large pictures took, for each thread."""

from __future__ import annotations

import asyncio
import ctypes
from collections.abc import Callable
from typing import Any, Final

_SECONDS: Final = 10.0


async def trim_for_ever() -> None:
    """Trim every ten seconds, in a thread; ends at once where the C library cannot."""
    trim = _trimmer()
    while trim is not None:
        await asyncio.sleep(_SECONDS)
        await asyncio.to_thread(trim, 0)


def _trimmer() -> Callable[[int], Any] | None:
    try:
        return ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # macOS, musl, Windows
        return None
