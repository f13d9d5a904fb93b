"""docs/formats.md names every file that a finished run holds, and every key of its records."""

import re

import pytest

from mlx_ssd import records
from mlx_ssd.layout import RunFiles
from mlx_ssd.recipe import Recipe
from mlx_ssd.storage import read_json
from tests.docs.parsing import ROOT

FORMATS = (ROOT / "docs" / "formats.md").read_text(encoding="utf-8")
FIGURES = (ROOT / "docs" / "figures.md").read_text(encoding="utf-8")
TREE = FORMATS.split("    runs/NAME/\n")[1].split("\n\n")[0]


def as_documented(path: str, arms: list[str]) -> list[str]:
    """A file's parts in the words of the page."""
    path = re.sub(r"[\w.-]+\.(generations|grades)\.jsonl$", r"SUITE-DECODING.\1.jsonl", path)
    path = re.sub(r"step-\d{8}", "step-NNNNNNNN", path)
    path = re.sub(r"^figures/.*\.svg$", "figures/NAME.svg", path)
    arm = "|".join(["base", "student", *map(re.escape, arms)])
    path = re.sub(rf"^eval/(?:{arm})/(?=SUITE)", "eval/ARM/", path)
    path = re.sub(rf"analysis/(?:{arm})/", "analysis/", path)
    path = re.sub(rf"arms/(?:{arm})/", "arms/NAME/", path)
    return path.split("/")


def test_every_file_of_a_finished_run(finished_run):
    recipe = Recipe.load(RunFiles(finished_run).recipe)
    arms = [arm.name for arm in recipe.arms]
    paths = sorted(file.relative_to(finished_run).as_posix() for file in finished_run.rglob("*") if file.is_file())
    assert len(paths) > 60
    words = set(re.findall(r"[\w.-]+", FORMATS))
    unnamed = {part for path in paths for part in as_documented(path, arms) if part not in words}
    assert unnamed == set()
    inside = {path for path in paths if "/" not in path}
    assert {path for path in inside if path not in re.findall(r"[\w.-]+", TREE)} == set()


def test_every_figure(finished_run):
    names = {path.stem for path in (finished_run / "figures").glob("*.svg")}
    known = [re.sub(r"K|ARM", r"[\\w-]+", name) for name in re.findall(r"`([\w-]+)`", FIGURES)]
    assert len(names) > 10 and {name for name in names if not any(re.fullmatch(k, name) for k in known)} == set()


RECORDS = ["Problem", "Sample", "Generation", "TrainingRow", "Grade", "Score", "Comparison", "CurvePoint"]


@pytest.mark.parametrize("name", RECORDS)
def test_every_key_of_a_record(name):
    rows = [line for line in FORMATS.splitlines() if line.startswith("| ")]
    [row] = [row for row in rows if re.search(rf"\b{name}\b", row.split("|")[1])]
    keys = set(getattr(records, name).model_fields) - {"v"}
    known = set(re.findall(r"`(\w+)`", row))
    below = {"minimum_detectable_effect", "mcnemar", "length_controlled"} if name == "Comparison" else set()
    assert keys - known == below and all(f"- `{key}`" in FORMATS for key in below)
    assert known - keys <= {"pass", "wrong", "error", "timeout", "memory", "no_code", "harness_error", "ungraded"}


def test_every_record_is_in_the_table():
    kinds = [kind for kind in vars(records).values() if isinstance(kind, type) and issubclass(kind, records.Record)]
    assert {kind.__name__ for kind in kinds} - {"Record", "Completion"} == set(RECORDS)


def test_what_the_manifest_says_of_a_unit(finished_run):
    manifest = read_json(finished_run / "manifest.json")
    assert set(manifest) == {"v", "versions", "machine", "stages"}
    assert {key for unit in manifest["stages"].values() for key in unit} <= {
        "fingerprint", "made_of", "complete", "measured", "outputs", "failures",
    }  # fmt: skip
