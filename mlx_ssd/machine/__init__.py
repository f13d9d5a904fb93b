"""The machine a run is made on: what it is, which versions it runs, and its fast matrix library."""

from __future__ import annotations

import ctypes.util
import importlib.metadata
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from mlx_ssd.machine import memory

PACKAGES = ("mlx-ssd-toolkit", "mlx", "mlx-lm", "transformers", "torch", "numpy")


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def describe() -> dict[str, str | int]:
    """Chip, cores, memory and system, for the manifest."""
    return {
        "system": f"{platform.system()} {platform.release()}",
        "chip": _chip(),
        "cores": os.cpu_count() or 1,
        "memory_bytes": memory.physical_bytes(),
    }


def _chip() -> str:
    if sys.platform == "darwin":
        answer = subprocess.run(
            ["sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, text=True, check=False
        )
        return answer.stdout.strip() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def peak_rss_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # kilobytes on Linux


def openblas() -> Path | None:
    """The OpenBLAS library to preload on Linux, if there is one. MLX's Linux wheel bundles the
    reference BLAS (1-5 GFLOP/s in float32); OpenBLAS in its place gives 17-70. Apple needs none."""
    if sys.platform != "linux":
        return None
    places = [*sorted(Path("/usr/lib").glob("*/libopenblas.so.0")), Path("/usr/lib64/libopenblas.so.0")]
    name = ctypes.util.find_library("openblas") if not any(p.exists() for p in places) else None
    return next((p for p in places if p.exists()), Path(name) if name else None)


def stage_environment(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment for a process that computes. MLX_SSD_BLAS=bundled leaves the wheel's own
    BLAS in place, whose results do not depend on the batch (rule 3 of docs/method.md)."""
    environment = dict(environment)
    preloaded = [p for p in environment.pop("LD_PRELOAD", "").split(":") if p and "openblas" not in p]
    library = openblas()
    if library and environment.get("MLX_SSD_BLAS") != "bundled":
        preloaded.insert(0, str(library))
    if preloaded:
        environment["LD_PRELOAD"] = ":".join(preloaded)
    # Transformers serves for tokenizers alone; that PyTorch is missing is no news.
    environment.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    return environment


@cache
def keep_awake() -> None:
    """Keep a Mac from sleeping until this process ends, however it ends; elsewhere nothing."""
    if sys.platform == "darwin":
        subprocess.Popen(["/usr/bin/caffeinate", "-i", "-w", str(os.getpid())])


def slow_blas_hint() -> str | None:
    """What to install when computing will be slow, or None."""
    if sys.platform != "linux" or openblas():
        return None
    return (
        "OpenBLAS was not found: computing takes 3 to 7 times longer without it. Debian and Ubuntu: "
        "apt install libopenblas0-pthread; Fedora: dnf install openblas-threads"
    )
