"""Every request is delivered once, whoever takes, hands back, takes over or delivers twice."""

import random

import pytest

from mlx_ssd.distributed.claims import Claims


def test_taken_in_order_and_what_is_handed_back_goes_first():
    claims = Claims(6)
    assert claims.take("a", 2) == [0, 1] and claims.take("b", 2) == [2, 3]
    assert claims.deliver("a", 1)
    assert claims.give_back("a") == 1
    assert claims.take("b", 9) == [0, 4, 5] and claims.take("a", 9) == []
    assert claims.left == 5


def test_the_first_delivery_counts_and_the_others_are_told():
    claims = Claims(4)
    claims.take("a", 4)
    assert claims.take_over("b", 9) == [3, 2]  # half, what was claimed last first
    assert claims.take_over("b", 9) == [1] and claims.take_over("c", 1) == [0]
    assert claims.deliver("b", 3) and not claims.deliver("a", 3) and not claims.deliver("b", 3)
    assert claims.stale("a") == [3] and claims.stale("a") == [] and claims.stale("b") == []
    assert claims.left == 3


def test_a_request_is_free_again_only_when_all_who_held_it_are_gone():
    claims = Claims(1)
    claims.take("a", 1)
    claims.take_over("b", 1)
    assert claims.give_back("a") == 0 and claims.take("c", 1) == []
    assert claims.give_back("b") == 1 and claims.take("c", 1) == [0]


def test_what_was_handed_back_can_still_be_delivered_and_is_then_not_handed_out():
    claims = Claims(2)
    claims.take("a", 2)
    claims.give_back("a")
    assert claims.deliver("a", 0) and claims.take("b", 9) == [1]


def test_what_the_fewest_hold_is_taken_over_first():
    claims = Claims(4)
    claims.take("a", 4)
    assert claims.take_over("b", 2) == [3, 2]
    assert claims.take_over("c", 2) == [1, 0]
    assert claims.take_over("d", 2) == [3, 2]


@pytest.mark.parametrize("seed", range(20))
def test_whatever_happens_each_is_delivered_once(seed):
    generator, claims, held, counted = random.Random(seed), Claims(50), {}, []
    while claims.left:
        owner = generator.choice("abc")
        mine = held.setdefault(owner, set())
        action = generator.random()
        if action < 0.3:
            new = claims.take(owner, generator.randint(1, 8)) or claims.take_over(owner, generator.randint(1, 8))
            assert not mine & set(new) and not set(counted) & set(new)
            mine |= set(new)
        elif action < 0.35:
            assert claims.give_back(owner) <= len(mine)
            mine.clear()
        elif mine:
            number = generator.choice(sorted(mine))
            mine.discard(number)
            if claims.deliver(owner, number):
                counted.append(number)
            mine -= set(claims.stale(owner))
    assert sorted(counted) == list(range(50))
