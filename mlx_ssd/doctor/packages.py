"""Python and the packages, beside the versions that this project's tests have passed with."""

from __future__ import annotations

import importlib.metadata
import platform
import sys

from mlx_ssd.doctor.finding import FAIL, OK, WARN, Finding

OLDEST_PYTHON, TESTED_PYTHON, TOO_NEW_PYTHON = (3, 11), (3, 11), (3, 14)
# Known good: the versions that the whole test suite has passed with, together, on Linux.
REQUIRED = {
    "mlx": "0.32.4",
    "mlx-lm": "0.32.2",
    "transformers": "5.24.0",
    "pyarrow": "26.0.1",
    "numpy": "2.3.5",
    "click": "8.5.1",
    "pydantic": "2.14.4",
    "PyYAML": "6.0.4",
    "rich": "15.0.0",
    "matplotlib": "3.11.2",
    "jinja2": "3.1.6",
    "safetensors": "0.8.0",
    "psutil": "7.2.2",
}
OPTIONAL = {"torch": "2.13.0", "peft": "0.21.2", "coremltools": "9.0", "gguf": "0.19.0"}


def python() -> Finding:
    found, now = platform.python_version(), sys.version_info[:2]
    if not OLDEST_PYTHON <= now < TOO_NEW_PYTHON:
        return Finding(FAIL, found, "make the environment with Python 3.11, 3.12 or 3.13")
    if now != TESTED_PYTHON:
        return Finding(WARN, f"{found}; the tests were passed with 3.11", "where something fails, try Python 3.11")
    return Finding(OK, found)


def packages() -> Finding:
    """All in one line: what is missing, what is older or newer than known good."""
    installed = {name: _version(name) for name in (*REQUIRED, *OPTIONAL)}
    if missing := [name for name in REQUIRED if installed[name] is None]:
        return Finding(FAIL, f"missing: {', '.join(missing)}", "install the project anew: pip install -e .")
    known = REQUIRED | OPTIONAL
    here = {name: version for name, version in installed.items() if version}
    if others := [name for name in here if here[name] != known[name]]:
        found = ", ".join(f"{name} {here[name]} (known good: {known[name]})" for name in others)
        pins = " ".join(f"{name}=={known[name]}" for name in others)
        return Finding(WARN, found, f"where something fails, try those known good: pip install {pins}")
    return Finding(OK, ", ".join(f"{name} {version}" for name, version in here.items()))


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name).partition("+")[0]  # of torch's builds the part that says cpu
    except importlib.metadata.PackageNotFoundError:
        return None
