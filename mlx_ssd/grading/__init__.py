"""Grading: take the program, or the number, out of an answer; run it shut in; compare what comes out."""

from mlx_ssd.grading.answers import extract_answer
from mlx_ssd.grading.cache import GradeCache
from mlx_ssd.grading.compare import same_output, same_value
from mlx_ssd.grading.extract import extract_code, extract_program
from mlx_ssd.grading.grade import check_canaries, grade, grade_many
from mlx_ssd.grading.preamble import with_preamble
from mlx_ssd.grading.process import ProcessSandbox
from mlx_ssd.grading.sandbox import Limits, Outcome, Sandbox
from mlx_ssd.grading.texts import grade_answers, grade_given
from mlx_ssd.grading.verdict import Verdict

__all__ = [
    "GradeCache",
    "Limits",
    "Outcome",
    "ProcessSandbox",
    "Sandbox",
    "Verdict",
    "check_canaries",
    "extract_answer",
    "extract_code",
    "extract_program",
    "grade",
    "grade_answers",
    "grade_given",
    "grade_many",
    "same_output",
    "same_value",
    "with_preamble",
]
