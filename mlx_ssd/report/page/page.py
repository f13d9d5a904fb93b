"""From what a run holds to report.html, one string."""

from __future__ import annotations

import base64
import hashlib
import re
import shlex
from functools import cache
from importlib.resources import files
from typing import Any

from mlx_ssd.report import markdown
from mlx_ssd.report.page import sections
from mlx_ssd.report.page.material import Material
from mlx_ssd.report.page.samples import LARGEST
from mlx_ssd.report.page.text import script_json, shortened, visible
from mlx_ssd.report.prediction import plan_table
from mlx_ssd.report.summary import QUESTIONS, summary

BESIDE_SCORES = "differences"  # the figure that stands in the section of the scores
MOST = 3000  # characters of one text of the page; of a recipe more
MOST_OF_A_RECIPE = 40_000
CONTENTS = (
    ("scores", "Scores"), ("figures", "Figures"), ("inside", "Inside"), ("samples", "Samples"), ("exports", "Exports"),
    ("speed", "Cost"), ("unmeasured", "Not measured"), ("provenance", "Provenance"), ("again", "Again"),
)  # fmt: skip


def render(material: Material) -> str:
    report, packed = material.report, material.packed
    values = {
        "report": report,
        "directory": material.directory,
        "questions": QUESTIONS,
        "summary": summary(report),
        "contents": CONTENTS,
        "scores": markdown.score_table(report),
        "differences": markdown.difference_table(report),
        "legend": markdown.legend(report),
        "details": markdown.details(report),
        "curve": markdown.curve_table(report) if report["curve"] else ([], []),
        "rounds": markdown.round_table(report),
        "beside_scores": [drawing for drawing in material.drawings if drawing.name == BESIDE_SCORES],
        "drawings": [drawing for drawing in material.drawings if drawing.name != BESIDE_SCORES],
        "inside": [_inside(arm, analysis) for arm, analysis in report.get("analysis", {}).items()],
        "packed": packed,
        "samples_note": material.samples_note or "There are no samples.",
        "analysed_texts": _analysed_texts(report, packed),
        "largest": LARGEST,
        "exports": sections.export_table(material.exports),
        "export_failures": [f"{e.get('target')}: {failure}" for e in material.exports for failure in e["failures"]],
        "parity": sections.parity_table(material.parity),
        "units": sections.unit_table(material.manifest),
        "plan": plan_table(report),
        "bench": sections.bench_table(material.bench),
        "not_measured": not_measured(material),
        "provenance": sections.provenance(report, material.manifest, material.recipe),
        "recipe_text": _long(material.recipe_text),
        "hashes": sections.hash_table(material.manifest),
        "commands": commands(material),
        "data": _trusted(script_json(packed.data)) if packed else "",
    }
    return fill("page.html", values)


def fill(template: str, values: dict[str, Any]) -> str:
    """A page of this folder. Text is made visible, cut where it is endless, and escaped; markup is only what the
    templates hold, and what was made inert."""
    style, script = _asset("style.css"), _asset("page.js") + _asset("viewer.js")
    policy = (
        f"default-src 'none'; style-src 'sha256-{_hash(style)}'; script-src 'sha256-{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    own = {"policy": _trusted(policy), "style": _trusted(style), "script": _trusted(script)}
    return _environment().get_template(template).render(**values, **own)


@cache
def _environment() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    def harmless(value: Any) -> Any:
        return visible(shortened(value, MOST)) if isinstance(value, str) and not isinstance(value, Markup) else value

    environment = Environment(
        loader=PackageLoader("mlx_ssd.report.page"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=harmless,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["inert"] = Markup  # of figures.inert only
    environment.filters["figures"] = _set_off
    return environment


_WHOLE = re.compile(r"[+-]?\d+(?:\.\d+)?(?: %)? \[[^\]]{1,40}\]|\b\w{1,20}-\w{1,20}\b")


def _set_off(text: str) -> Any:
    """A sentence whose figures with their interval, and names with a hyphen, are not broken over lines."""
    from markupsafe import Markup, escape

    text, found, end = visible(shortened(text, MOST)), Markup(), 0
    for match in _WHOLE.finditer(text):
        found += escape(text[end : match.start()]) + Markup('<span class="whole">{}</span>').format(match[0])
        end = match.end()
    return found + escape(text[end:])


def _long(text: str) -> Any:
    from markupsafe import escape

    return escape(visible(shortened(text, MOST_OF_A_RECIPE)))


def _trusted(text: str) -> Any:
    from markupsafe import Markup

    return Markup(text)


@cache
def _asset(name: str) -> str:
    return (files(__package__) / "templates" / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _inside(arm: str, analysis: dict[str, Any]) -> dict[str, Any]:
    texts, rule = analysis.get("texts", {}), analysis.get("rule", {})
    about = [f"Texts: {texts['source']}" if "source" in texts else ""]
    if {"texts", "problems", "tokens"} <= texts.keys():
        about.append(f"{texts['texts']:,} texts of {texts['problems']:,} problems, {texts['tokens']:,} tokens")
    about.append(f"Rule: {rule['words']}" if "words" in rule else "")
    if residuals := analysis.get("residuals"):
        largest = max(residuals.values())
        about.append(f"The identities of the paper hold on every token to {largest:.1e}")
    return {
        "name": arm,
        "finding": analysis.get("finding", []),
        "about": " ".join(part.rstrip(".") + "." for part in about if part),
        "tables": sections.inside_tables(analysis),
        "gain": sections.gain_table(analysis),
        "sensitivity": sections.sensitivity_table(analysis),
    }


def _analysed_texts(report: dict[str, Any], packed: Any) -> str:
    arms = packed.arms if packed else []
    sources = (report.get("analysis", {}).get(arm, {}).get("texts", {}).get("source") for arm in arms)
    return next((source.rstrip(".") for source in sources if source), "see above")


def not_measured(material: Material) -> list[str]:
    """The report's own list, and what other commands would add."""
    found = list(material.report["not_measured"])
    if not material.report.get("analysis"):
        found.append("What changed at each token (mlx-ssd analyze).")
    if not material.exports:
        found.append("Whether an export keeps the gain (mlx-ssd export).")
    if not material.parity:
        found.append("Parity with PyTorch (mlx-ssd parity).")
    if not any("decode_tps" in row for row in material.bench):
        found.append("Speed of the student (mlx-ssd bench).")
    return [*found, "Energy of the run."]


def commands(material: Material) -> list[tuple[str, str]]:
    run = shlex.quote(material.directory)
    seed = f", seed {material.recipe['seed']}" if "seed" in material.recipe else ""
    again = shlex.quote(f"{material.directory}-again")
    found = [(f"The same run once more, from its own recipe{seed}:", f"mlx-ssd run {run}/recipe.yaml --out {again}")]
    found += [("What changed at each token:", f"mlx-ssd analyze {run}"), ("This page anew:", f"mlx-ssd report {run}")]
    return [*found, ("Ask it something:", material.report["next"])]
