"""The import graph is the design: cli -> pipeline -> stages -> compositions -> libraries -> foundations."""

import ast
import functools
import subprocess
import sys
from pathlib import Path

import mlx_ssd

PACKAGE = Path(mlx_ssd.__file__).parent
FOUNDATIONS = {
    "errors", "recipe", "records", "storage", "layout", "machine", "models", "prompts", "progress", "statistics",
    "assets", "arms", "rounds", "recipe_text", "budget", "attention", "child", "weights", "strict_yaml", "heartbeat",
    "harmony", "thinking", "cost", "sections",
}  # fmt: skip
TWINS = {"torch_ref"}  # the same mathematics in PyTorch; libraries compare with it or let it work
LIBRARIES = {"problems", "sampling", "filters", "training", "grading", "scoring", "report", "supervision"}
# Of libraries, for the stages and what stands beside them.
COMPOSITIONS = {"controls", "validation", "evaluation", "comparisons", "analysis", "distributed"}
TOP = {
    "cli", "cli_suites", "cli_export", "cli_parity", "cli_plan", "cli_doctor", "cli_bench", "cli_analyze",
    "cli_report", "cli_work", "downloads", "pipeline",
    "stages", "answer", "probing", "suites", "export", "parity", "planning", "doctor", "bench", "__init__",
}  # fmt: skip
HEAVY = ("mlx", "mlx_lm", "transformers", "datasets", "torch", "huggingface_hub", "matplotlib")


def room(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


@functools.cache
def imports() -> set[tuple[str, str]]:
    """(file relative to the package, module of mlx_ssd that it imports), nested imports included."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        name = str(path.relative_to(PACKAGE))
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                modules = [node.module]
                if node.module == "mlx_ssd" or node.module in ("mlx_ssd.stages",):
                    modules = [f"{node.module}.{alias.name}" for alias in node.names]
            else:
                continue
            found |= {(name, m) for m in modules if m.split(".")[0] == "mlx_ssd"}
    return found


def rooms() -> set[tuple[str, str]]:
    """(room that imports, room that is imported), without a room's imports of itself."""
    pairs = {(Path(name).parts[0].removesuffix(".py"), room(module)) for name, module in imports()}
    return {(a, b) for a, b in pairs if a != b and b != "__version__"}


def test_every_room_has_a_place_in_the_layers():
    here = {
        p.stem if p.suffix else p.name for p in PACKAGE.iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()
    }
    assert here == FOUNDATIONS | LIBRARIES | TWINS | COMPOSITIONS | TOP | {"decoding"}


def test_foundations_import_only_foundations():
    assert {(a, b) for a, b in rooms() if a in FOUNDATIONS and b not in FOUNDATIONS} == set()


def test_decoding_imports_only_errors():
    assert {b for a, b in rooms() if a == "decoding"} <= {"errors"}


def test_libraries_import_only_foundations_and_decoding():
    below = FOUNDATIONS | {"decoding"}
    assert {(a, b) for a, b in rooms() if a in TWINS and b not in below} == set()
    assert {(a, b) for a, b in rooms() if a in LIBRARIES and b not in below | TWINS} == set()


def test_compositions_import_only_libraries_and_what_is_below():
    below = FOUNDATIONS | LIBRARIES | TWINS | {"decoding"}
    assert {(a, b) for a, b in rooms() if a in COMPOSITIONS and b not in below | COMPOSITIONS} == set()
    above = {"stages", "answer", "probing", "suites", "parity", "export", "bench", "cli_analyze", "cli", "cli_work"}
    assert {a for a, b in rooms() if b in COMPOSITIONS} <= COMPOSITIONS | above


def test_stages_never_import_stages():
    inside = {
        (name, module)
        for name, module in imports()
        if name.startswith("stages/") and module.startswith("mlx_ssd.stages.")
    }
    assert inside == set()


def test_nothing_imports_upwards():
    assert {(a, b) for a, b in rooms() if b == "cli"} == set()
    above_stages = {"cli", "cli_suites", "cli_analyze", "suites", "export", "parity", "bench", "__init__"}
    assert {a for a, b in rooms() if b == "pipeline"} <= above_stages
    assert {a for a, b in rooms() if b == "stages"} <= {"pipeline", "suites", "cli"}
    assert {a for a, b in rooms() if b in ("answer", "probing")} <= {"cli"}
    assert {a for a, b in rooms() if b == "suites"} <= {"cli", "cli_suites", "bench"}
    assert {a for a, b in rooms() if b == "downloads"} <= {"cli", "cli_suites", "cli_bench"}
    assert {a for a, b in rooms() if b == "export"} <= {"cli", "cli_export", "parity", "bench"}
    assert {a for a, b in rooms() if b == "parity"} <= {"cli", "cli_parity"}
    assert {a for a, b in rooms() if b == "planning"} <= {"cli", "cli_plan"}
    assert {a for a, b in rooms() if b == "doctor"} <= {"cli", "cli_doctor"}
    assert {a for a, b in rooms() if b == "bench"} <= {"cli", "cli_bench"}
    commands = {
        f"cli_{name}"
        for name in ("suites", "export", "parity", "plan", "doctor", "bench", "analyze", "report", "work")
    }
    assert {a for a, b in rooms() if b in commands} <= {"cli"}


def loaded_by(code: str) -> set[str]:
    script = f"{code}\nimport sys; print(*sorted({{m.split('.')[0] for m in sys.modules}}))"
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    return set(output.split())


def test_help_imports_nothing_heavy():
    code = "from click.testing import CliRunner\nfrom mlx_ssd.cli import main\n"
    code += "assert CliRunner().invoke(main, ['--help']).exit_code == 0"
    loaded = loaded_by(code)
    assert loaded & set(HEAVY) == set()
    assert loaded & {"pydantic", "numpy", "rich", "yaml"} == set()


def test_stages_recipes_and_planning_import_no_array_library():
    code = "from mlx_ssd import stages, pipeline, planning\nfor name in stages.NAMES: stages.get(name)"
    assert loaded_by(code) & set(HEAVY) == set()
