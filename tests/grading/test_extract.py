import pytest

from mlx_ssd.grading import extract_code, extract_program

T = "```"


@pytest.mark.parametrize(
    "opening",
    [
        "```python",
        "```python3",
        "```py",
        "```Python",
        "``` python",
        "```python ",
        "```{.python}",
        "```python title=a.py",
        "```",
        "~~~python",
        "~~~",
        "````python",
        "   ```python",
    ],
)
def test_fences_as_models_write_them(opening):
    closing = opening.strip()[0] * (4 if "````" in opening else 3)
    assert extract_code(f"Here:\n{opening}\nx = 1\n\ny = 2\n{closing}\ndone") == "x = 1\n\ny = 2"


@pytest.mark.parametrize(
    "text, code",
    [
        ("```python\r\nx = 1\r\n```\r\n", "x = 1"),
        ("```python\nfirst\n```\nBetter:\n```python\nsecond\n```", "second"),
        # an example of the output, labelled or not, does not replace the program
        ("```python\nprint(3)\n```\nOutput:\n```\n3\n```", "print(3)"),
        ("```\nprint(3)\n```\nOutput:\n```text\n3\n```", "print(3)"),
        ("```\ninput\n```\n```\nprogram\n```", "program"),
        ("```cpp\nint x;\n```", None),
        ("```python\n\n```", None),
        # a fence in a list item: its indentation goes, the program's stays
        ("1. so:\n   ```python\n   def f():\n       return 1\n   ```", "def f():\n    return 1"),
        # fences inside longer ones, and backticks inside the code
        ("````python\ns = '''\n```\n'''\n````", "s = '''\n```\n'''"),
        ("```python\ns = '```'\n```", "s = '```'"),
        ("~~~python\n```\n~~~", "```"),
        # unclosed
        ("```python\nx = 1", "x = 1"),
        ("```python\nx = 1\n```\nOr:\n```python\ny = (", "x = 1"),
        ("```python\nx = (\nWait.\n```python\ny = 2\n```", "y = 2"),
        # no fence
        ("x = 1", None),
        ("`x = 1`", None),
        ("", None),
        # thinking
        ("<think>\n```python\nx = 1\n```\n</think>\n```python\ny = 2\n```", "y = 2"),
        ("<think>\n```python\nx = 1\n```\n</think>\nNo idea.", None),
        ("thinking opened by the prompt\n```python\nx = 1\n```\n</think>\nNo idea.", None),
        ("<think>\n```python\nx = 1\n```\nand never ends", None),
        ("```python\ny = 2\n```\n<think>\n```python\nx = 1\n```\n</think>", "y = 2"),
    ],
)
def test_rules(text, code):
    assert extract_code(text) == code


STEM = "import math\n\n\ndef f(x):\n    \"\"\"Twice.\"\"\"\n"


@pytest.mark.parametrize(
    "text, program",
    [
        # as a base model goes on, up to where the authors of HumanEval stopped theirs
        ("    return 2 * x", STEM + "    return 2 * x\n"),
        ("    return 2 * x\n\n\ndef g():\n    pass", STEM + "    return 2 * x\n\n\n"),
        ("    return 2 * x\n# so\nprint(f(1))", STEM + "    return 2 * x\n"),
        ("    if x:\n        # so\n        return 0\n", STEM + "    if x:\n        # so\n        return 0\n\n"),
        ("<think>\nhm\n</think>    return 2 * x\r\n", STEM + "    return 2 * x\n\n"),
        # whatever has a fence is a whole program, or none
        ("```python\ndef f(x): return 2 * x\n```", "import math\ndef f(x): return 2 * x"),
        ("```python\ndef f(x): return 2 *", "import math\ndef f(x): return 2 *"),
        ("```cpp\nint x;\n```", None),
        ("```python\n\n```", None),
        (" \n", None),
        ("<think>\n    return 2 * x", None),
    ],
)  # fmt: skip
def test_an_answer_without_a_fence_goes_on_from_the_stem(text, program):
    assert extract_program(text, "import math", STEM) == program


def test_without_a_stem_bare_text_is_no_program():
    assert extract_program("    return 2 * x", "import math") is None
