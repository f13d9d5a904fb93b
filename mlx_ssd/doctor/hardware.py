"""Chip, memory, what the GPU may take of it, the operating system, and the matrix library."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys

from mlx_ssd import machine
from mlx_ssd.doctor.finding import FAIL, OK, PATIENCE, WARN, Finding, ask, gigabytes
from mlx_ssd.machine import memory as limits
from mlx_ssd.machine import metal

OLDEST_MACOS = (14, 0)  # MLX's wheels
SMALL_BYTES = 15e9  # the recipes of 4 billion parameters ask for 16 GB
TINY_BYTES = 2e9


def chip() -> Finding:
    if sys.platform != "darwin":
        return Finding(OK, f"{machine.describe()['chip']}, {os.cpu_count()} cores; no Mac, MLX computes on them")
    name = ask("sysctl", "-n", "machdep.cpu.brand_string") or platform.machine()
    if ask("sysctl", "-n", "sysctl.proc_translated") == "1":
        return Finding(FAIL, f"{name}, but this Python runs in Rosetta", "make the environment with an arm64 Python")
    if platform.machine() != "arm64":
        return Finding(FAIL, f"{name}, an Intel Mac", "MLX needs Apple silicon: use a Mac with an M chip, or Linux")
    return Finding(OK, f"{name}, {os.cpu_count()} cores")


def memory() -> Finding:
    bounds = limits.limits()
    by, least = min(bounds.items(), key=lambda item: item[1])
    found = gigabytes(bounds["memory"])
    if by != "memory":
        found += f", of which a limit ({by}) leaves {gigabytes(least)}"
    if least < TINY_BYTES:
        return Finding(FAIL, found, "raise the limit or use a machine with more: the embedded model alone wants 2 GB")
    if least < SMALL_BYTES:
        return Finding(WARN, found, "enough for quickstart; for the recipes of 4B models use 16 GB or more")
    return Finding(OK, found)


def working_set() -> Finding:
    """What macOS recommends that the GPU takes at most; above it Metal ends the process. And whether MLX works."""
    try:
        done = metal.probe(PATIENCE)
    except subprocess.TimeoutExpired:
        return Finding(WARN, "MLX did not start in time", "try again when the machine is less busy")
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        return Finding(FAIL, f"MLX does not compute: {last}", "install it anew: pip install --force-reinstall mlx")
    facts = json.loads(done.stdout)
    if not facts["gpu"]:
        if sys.platform == "darwin":
            return Finding(FAIL, "MLX finds no GPU", "run outside of a virtual machine that has no Metal")
        return Finding(OK, "MLX computes, on the processor: memory alone bounds it")
    size = facts["bytes"]
    raised = ask("sysctl", "-n", "iogpu.wired_limit_mb")
    by_hand = f" (iogpu.wired_limit_mb is set to {raised})" if raised not in ("", "0") else ""
    return Finding(OK, f"MLX computes, on the GPU; macOS recommends at most {gigabytes(size)}{by_hand}")


def system() -> Finding:
    if sys.platform == "darwin":
        version = ask("sw_vers", "-productVersion") or platform.mac_ver()[0]
        numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
        if numbers and numbers < OLDEST_MACOS:
            return Finding(FAIL, f"macOS {version}", "update to macOS 14 or later: MLX has no wheels for older ones")
        return Finding(OK, f"macOS {version}")
    if sys.platform == "linux":
        return Finding(OK, f"{platform.system()} {platform.release()}")
    return Finding(FAIL, platform.system(), "use a Mac with an M chip, or Linux")


def blas() -> Finding | None:
    """Of Linux: macOS has Accelerate."""
    if sys.platform != "linux":
        return None
    hint = machine.slow_blas_hint()
    if hint:
        return Finding(WARN, "MLX's own, which is slow", hint)
    if os.environ.get("MLX_SSD_BLAS") == "bundled":
        return Finding(WARN, "MLX's own, by MLX_SSD_BLAS=bundled", "unset MLX_SSD_BLAS to compute 3 to 7 times faster")
    return Finding(OK, f"OpenBLAS, {machine.openblas()}")
