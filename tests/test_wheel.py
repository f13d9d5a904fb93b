"""The wheel: small, and whole without the checkout."""

import os
import subprocess
import sys
import zipfile

import pytest

from mlx_ssd import recipe

ROOT = recipe.recipe_folder().parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    if not (ROOT / "pyproject.toml").exists():
        pytest.skip("not a checkout")
    pytest.importorskip("hatchling")
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(out)]
    subprocess.run([*command, str(ROOT)], check=True)
    (built,) = out.glob("*.whl")
    return built


def test_wheel_is_at_most_15_megabytes(wheel):
    assert wheel.stat().st_size <= 15e6


def test_recipes_embedded_model_and_templates_are_inside(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path)
    code = (
        "import mlx_ssd, mlx_ssd.recipe as r, mlx_ssd.assets as a;"
        "print(mlx_ssd.__file__, r.recipe_folder(), *r.names());"
        "assert (a.model_path() / 'model.safetensors').exists() and a.problems_path('test').exists();"
        "from mlx_ssd.export import swift;"
        "assert all((swift.TEMPLATES / t / 'Sources/Student/Student.swift').exists() for t in swift.TARGETS);"
        "from mlx_ssd.report.page import page;"
        "assert all(page._asset(name) for name in ('page.html', 'compare.html', 'viewer.html', 'macros.html'));"
        "assert all(page._asset(name) for name in ('style.css', 'page.js', 'viewer.js'));"
        "from mlx_ssd.cli import main; main(['run', '--dry-run'])"
    )
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    output = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    ).stdout
    first = output.splitlines()[0].split()
    assert first[0].startswith(str(tmp_path)) and first[1] == str(tmp_path / "mlx_ssd" / "_recipes")
    assert first[2:] == recipe.names()
    assert "name: quickstart" in output
