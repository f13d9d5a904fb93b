"""How much a recipe asks for."""

from mlx_ssd.budget.work import decodings_of_test
from mlx_ssd.recipe import Recipe


def test_the_ideal_student_of_the_base_as_it_is_answers_nothing():
    plain = {"sample.decoding": {"temperature": 1, "top_k": 0, "top_p": 1}}
    settings = ({}, plain, {"evaluate.two_stage": False})
    assert [decodings_of_test(Recipe.parse("", "r", own)) for own in settings] == [[2, 1], [1, 1], [1, 1]]
