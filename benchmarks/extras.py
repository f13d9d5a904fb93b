"""Whether the extras can be installed: each alone, and all together, in virtual environments of their own.

    python -m benchmarks.extras [EXTRA ...] [--constraint FILE] [--resolve 3.12 --resolve 3.13]

Installs with this Python and asks every target of `mlx-ssd export` whether it has what it needs; those of other extras
must say in one sentence how to get it. For the Pythons of --resolve pip only looks for versions that go together, as
wheels. Downloads gigabytes where --constraint does not choose a CPU build of torch.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
TOGETHER = "together"

# In the environment that was just made: target -> None, or what `export.get` says against it.
ASK = """
import json
from mlx_ssd import export
from mlx_ssd.errors import BadInput
said = {}
for name in export.TARGETS:
    try:
        export.get(name)
        said[name] = None
    except BadInput as error:
        said[name] = str(error)
print(json.dumps(said))
"""


def exporters() -> list[str]:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    return [name for name in extras if name not in ("test", "stand-ins")]


def install(extras: list[str], options: list[str]) -> dict[str, str | None]:
    """Target -> None where it is ready, or the sentence that says what it lacks."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        python = f"{folder}/bin/python"
        _pip(python, ["install", "--quiet", *options, "-e", f"{ROOT}[{','.join(extras)}]"])
        said = subprocess.run([python, "-c", ASK], capture_output=True, text=True, check=True).stdout
    return json.loads(said)


def resolve(version: str, extras: list[str], options: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        other = ["--python-version", version, "--only-binary", ":all:", "--target", folder, "--dry-run", "--quiet"]
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        wanted = [project["dependencies"], *(project["optional-dependencies"][name] for name in extras)]
        _pip(sys.executable, ["install", *other, *options, *itertools.chain(*wanted)])


def _pip(python: str, arguments: list[str]) -> None:
    subprocess.run([python, "-m", "pip", *arguments], check=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("extra", nargs="*", help=f"some of {', '.join(exporters())}, {TOGETHER}; all")
    parser.add_argument("--constraint", type=Path, help="handed to pip")
    parser.add_argument("--resolve", action="append", default=[], metavar="VERSION")
    options = parser.parse_args()
    constraint = ["-c", str(options.constraint)] if options.constraint else []
    from mlx_ssd import export

    good = True
    for name in options.extra or [*exporters(), TOGETHER]:
        extras = exporters() if name == TOGETHER else [name]
        said = install(extras, constraint)
        lacking = {target: sentence for target, sentence in said.items() if sentence}
        ready = [target for target in said if target not in lacking]
        wrong = [target for target in lacking if export.find(target).EXTRA in extras]
        wrong += [target for target, sentence in lacking.items() if "pip install -e '.[" not in sentence]
        good &= not wrong
        print(f"{name}: ready {', '.join(ready)}; {f'wrong: {wrong}' if wrong else 'ok'}", flush=True)
    for version in options.resolve:
        for name in options.extra or [*exporters(), TOGETHER]:
            resolve(version, exporters() if name == TOGETHER else [name], constraint)
            print(f"{name}: resolves for Python {version}")
    return not good


if __name__ == "__main__":
    sys.exit(main())
