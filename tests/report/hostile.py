"""What a model or a user may write to break a page, and a run that says it everywhere."""

from __future__ import annotations

import copy
from typing import Any

from mlx_ssd.report.page import samples
from mlx_ssd.report.page.material import Material
from tests.report import synthetic

RAN = "window.ran=(window.ran||0)+1"
STRINGS = [
    f"<script>{RAN}</script>",
    f"</script><script>{RAN}</script>",
    f"</SCRIPT ><script>{RAN}</script>",
    f"<!--<script>{RAN}",
    "<!-- --><!doctype html><!--",
    "]]><![CDATA[<b>",
    f'"><img src=x onerror="{RAN}">',
    f"'><img src=x onerror='{RAN}'>",
    f"<svg onload={RAN}><circle r=9></svg>",
    f"<math><mtext><table><mglyph><style><img src=x onerror={RAN}>",
    f"<iframe srcdoc='<script>parent.{RAN}</script>'></iframe>",
    f"<a href=javascript:{RAN}>link</a>",
    f"javascript:{RAN}",
    "data:text/html,<script>1</script>",
    "<base href=https://example.org/>",
    "<meta http-equiv=refresh content='0;url=https://example.org/'>",
    "<link rel=stylesheet href=https://example.org/x.css>",
    "<form action=https://example.org><input autofocus onfocus=1></form>",
    "</style><style>*{display:none}</style>",
    "} body { display: none } /*",
    "expression(alert(1)); background: url(https://example.org/)",
    "&lt;b&gt;&amp;&#60;i&#62;&nbsp;&NotAnEntity;",
    "{{ 7 * 7 }}{% raw %}{# comment #}",
    "{{ self.__init__.__globals__ }}",
    "${7*7} `${window.ran=1}` #{7*7}",
    "</pre></code></bdi></details></main></body></html>",
    "</textarea></title></noscript></select></option>",
    "a\u202egnp.exe\u202c b\u2066c\u2069 \u200f\u200e",
    "line\u2028separator\u2029paragraph",
    "NUL\x00 bell\x07 escape\x1b[31mred\x1b[0m delete\x7f c1\x9b carriage\rreturn \x0b\x0c",
    "half \ud83d pair \udc00 not \ufffe \uffff",
    "zero\u200bwidth\u200djoin\u2060er\ufeff\u00ad",
    "z\u0351\u0325a\u0489lgo" + "\u0300" * 200,
    "عربي שלום 123 (abc)",
    "x" * 5000,
    "🙂👩\u200d👩\u200d👧 \U000e0041tag",
    "\\u003cscript\\u003e \\x3cimg\\x3e \\",
    '"quotes\' and `ticks` \\" \\n',
    "⟨U+202E⟩ ⟨e2⟩",
    "y" * 1_000_000,
    "<" * 5000,
    "__proto__",
    "constructor",
]


def material(at: slice | None = None) -> Material:
    """Hostile in every place that takes a text: samples, prompts, tests, names of arms and problems, and the rest."""
    strings = STRINGS[at] if at else STRINGS
    found = synthetic.page_material(8)
    texts = synthetic.texts(len(strings), length=6, per_problem=1)
    taken, problems = [], {}
    for n, text in enumerate(texts):
        hostile = strings[n % len(strings)]
        ids = [1 + n % len(strings), *text.completion_ids[1:]]
        known = text.model_copy(update={"completion_ids": ids})
        name = f"{hostile[:300]} {n}"
        problem = synthetic.problems([known])[known.problem_id]
        test = {"args": [hostile], "expected": hostile}
        said = {"id": name, "prompt": hostile, "tests": [test]}
        problems[name] = problem.model_construct(**problem.model_dump() | said)
        taken.append(samples.Sample(name, 0, hostile, ids, hostile, hostile, hostile, hostile, n))
        texts[n] = known
    part = synthetic.store.Part(0, len(texts), synthetic.columns(texts))
    arm = strings[0]
    found.packed = samples.pack(
        taken, problems, synthetic.Pieces([*strings, *synthetic.WORDS]), {arm: lambda: [part]}, {arm: synthetic.RULE}
    )
    found.report = _everywhere(synthetic.report(), strings)
    found.report["analysis"] = {s[:200]: _said(synthetic.summary(s), strings) for s in strings[:3]}
    found.report |= {"warnings": list(strings), "not_measured": list(strings), "verdict": list(strings)}
    found.manifest = synthetic.manifest()
    found.manifest["versions"] = {s[:300]: s for s in strings}
    found.manifest["stages"][strings[-1]] = {"measured": {"seconds": 1.0}, "outputs": {s: s for s in strings}}
    found.directory, found.recipe_text = strings[0], "\n".join(strings)
    found.exports = [{"target": s, "verdict": s, "checked_by": s, "failures": [s]} for s in strings]
    found.parity = {"rows": [{"quantity": s, "verdict": s} for s in strings]}
    found.bench = [{"model": s, "adapter": s, "decode_tps": {"mean": 1.0}} for s in strings]
    return found


def _everywhere(report: dict[str, Any], strings: list[str]) -> dict[str, Any]:
    """Names of arms, suite, recipe, model and of what was counted."""
    found, arm = copy.deepcopy(report), strings[1 % len(strings)]
    found |= {"recipe": strings[2 % len(strings)], "model": {"path": strings[3 % len(strings)], "revision": strings[0]}}
    found["next"] = strings[-1]
    for of in found["scores"]:
        of["arm"] = arm if of["arm"] == "student" else of["arm"]
        of["suite"] = strings[0]
        of["verdicts"] = {s: 1 for s in strings}
        of["pass_at_by_difficulty"] = {s[:50]: {"1": 0.5} for s in strings[:3]}
    for of in found["comparisons"]:
        of |= {key: arm for key in ("arm", "baseline") if of[key] == "student"}
    found["arms"][0]["name"] = arm
    return found


def _said(summary: dict[str, Any], strings: list[str]) -> dict[str, Any]:
    summary["finding"] = list(strings)
    summary["texts"]["source"] = summary["rule"]["words"] = " ".join(strings[:5])
    summary["sensitivity"] = [{"rule": s, s[:100]: 0.5} for s in strings]
    summary["gain"] = {s[:100]: {"compression": 0.1} for s in strings}
    return summary
