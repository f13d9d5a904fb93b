"""Room on the disks, and whether the model hub can be reached."""

from __future__ import annotations

import shutil
import urllib.error
import urllib.request
from pathlib import Path

from mlx_ssd.doctor.finding import FAIL, OK, WARN, Finding, gigabytes
from mlx_ssd.machine import certificates

SCARCE_BYTES = 10e9  # a 4B model in 4 bits, its run and its exports
TOO_LITTLE_BYTES = 1e9
HUB_SECONDS = 2.0
RUNS = Path("runs")


def disk() -> Finding:
    """Where runs go (runs/ in this folder) and where the hub's files are kept."""
    from huggingface_hub import constants

    free = {name: _free(path) for name, path in (("runs/", RUNS), ("the hub's cache", Path(constants.HF_HUB_CACHE)))}
    found = ", ".join(f"{gigabytes(size)} free for {name}" for name, size in free.items())
    least = min(free.values())
    if least < TOO_LITTLE_BYTES:
        return Finding(FAIL, found, "make room, or move runs with --out and the cache with HF_HOME")
    if least < SCARCE_BYTES:
        return Finding(WARN, found, "enough for quickstart; make room for a 4B model and its run (10 GB)")
    return Finding(OK, found)


def _free(path: Path) -> int:
    """Of the disk where it is, or would be made."""
    path = path.expanduser().absolute()
    return shutil.disk_usage(next(place for place in (path, *path.parents) if place.exists())).free


def hub() -> Finding:
    """The embedded model needs none, so nothing here is a failure."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return Finding(OK, "not asked: HF_HUB_OFFLINE is set, only what is in the cache is used")
    address = constants.ENDPOINT
    try:
        request = urllib.request.Request(address, method="HEAD", headers={"User-Agent": "mlx-ssd-doctor"})
        urllib.request.urlopen(request, timeout=HUB_SECONDS, context=certificates.context()).close()
    except urllib.error.HTTPError:
        pass  # it answers
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or str(error) or type(error).__name__
        mend = "look at the network, HTTPS_PROXY and HF_ENDPOINT; the embedded model and the cache need no hub"
        return Finding(WARN, f"{address} does not answer ({reason})", mend)
    return Finding(OK, f"{address} answers")
