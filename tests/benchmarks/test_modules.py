"""Benchmarks take minutes and are run by hand: at least each of their modules finds what it imports."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

OPTIONAL = {"torch", "peft", "coremltools", "coreai", "gguf"}  # extras
IMPORT_ALL = """
import importlib, sys
failed = []
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        failed.append(f"{name}: {error.name}")
    except ImportError as error:
        failed.append(f"{name}: {error}")
print("\\n".join(failed))
"""


def test_every_module_can_be_imported():
    names = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in sorted((ROOT / "benchmarks").rglob("*.py"))
        if path.name != "__init__.py"
    ]
    assert len(names) > 40
    process = subprocess.run([sys.executable, "-c", IMPORT_ALL, *names], cwd=ROOT, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    failed = [line.split(": ", 1) for line in process.stdout.splitlines() if line]
    assert not [f"{name}: {missing}" for name, missing in failed if missing.split(".")[0] not in OPTIONAL]
    if failed:
        pytest.skip("not installed, for " + ", ".join(f"{name}: {missing}" for name, missing in failed))
