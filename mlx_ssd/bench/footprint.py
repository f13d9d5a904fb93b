"""What the system counts as this process's memory."""

from __future__ import annotations

import ctypes
import os
import struct
import sys

import psutil

from mlx_ssd import machine

# <sys/resource.h>: struct rusage_info_v4 is a UUID of 16 bytes and 35 counters of 8.
RUSAGE_INFO_V4 = 4
SIZE = 16 + 35 * 8
PHYS_FOOTPRINT, LIFETIME_MAX_PHYS_FOOTPRINT = 16 + 7 * 8, 16 + 28 * 8


def now_and_peak() -> tuple[int, int] | None:
    """Bytes now, and the most there ever were: on a Mac the physical footprint, which Activity Monitor shows and
    Metal's buffers are in; elsewhere the resident set. None where a Mac does not say."""
    if sys.platform == "darwin":
        return _of_macos(ctypes.CDLL("/usr/lib/libSystem.B.dylib"))
    now = psutil.Process().memory_info().rss
    return now, max(now, machine.peak_rss_bytes())  # the kernel keeps the peak up less often


def _of_macos(system: ctypes.CDLL) -> tuple[int, int] | None:
    buffer = ctypes.create_string_buffer(SIZE)
    if system.proc_pid_rusage(os.getpid(), RUSAGE_INFO_V4, buffer) != 0:
        return None
    return tuple(struct.unpack_from("<Q", buffer, at)[0] for at in (PHYS_FOOTPRINT, LIFETIME_MAX_PHYS_FOOTPRINT))
