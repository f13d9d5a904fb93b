"""What goes over the line comes out the same, and what cannot be right is not taken."""

import json

import pytest

from mlx_ssd.decoding.draw import NO_TOKEN
from mlx_ssd.decoding.policy import DecodingPolicy, StagedPolicy
from mlx_ssd.distributed import jobs
from mlx_ssd.distributed.jobs import Job
from mlx_ssd.distributed.wire import Lost
from mlx_ssd.sampling.loops import LoopStop
from mlx_ssd.sampling.prefill import shared_beginning
from mlx_ssd.sampling.requests import Completed, Request, Row

POLICIES = (DecodingPolicy(1.6, 20, 0.8), StagedPolicy(DecodingPolicy(1.6, 20, 0.8), DecodingPolicy(0.7)))
PROMPTS = ([*range(10), 5, 6, 7], [*range(10), 5], [*range(10), 4, 4, 4, 4, 4, 4], list(range(10)))
REQUESTS = [
    Request((0, f"p{i}", 0), PROMPTS[i % 4], POLICIES[i % 2], (i, 4_000_000_000 + i), 40 - i) for i in range(12)
]
JOB = Job("sample", "embedded", "r", "float32", None, (), POLICIES, (1, 2), LoopStop(8, 4, 16), 8, 12)


def over_the_line(message):
    return json.loads(json.dumps(message))


def test_job_and_requests_come_out_the_same():
    job, bounds = Job.of(over_the_line(JOB.message(REQUESTS[:3])))
    assert job == JOB and [b.prompt_ids for b in bounds] == [r.prompt_ids for r in REQUESTS[:3]]
    message = jobs.requests_message([(7, REQUESTS[1]), (9, REQUESTS[2]), (10, REQUESTS[6])], POLICIES)
    assert len(message["prompts"]) == 2
    sent = (REQUESTS[1], REQUESTS[2], REQUESTS[6])
    for number, request, found in zip(
        (7, 9, 10), sent, jobs.requests_of(over_the_line(message), POLICIES), strict=True
    ):
        assert (found.key, found.prompt_ids, found.policy) == (number, request.prompt_ids, request.policy)
        assert (found.random_key, found.max_tokens) == (request.random_key, request.max_tokens)


def test_the_few_that_stand_for_all_give_the_same_bounds():
    few = jobs.bounding(REQUESTS)
    assert len(few) < 6

    def bounds(requests):
        contexts = [Row(request, None).context for request in requests]
        return (
            shared_beginning(contexts),
            max(len(r.prompt_ids) for r in requests),
            max(len(r.prompt_ids) + r.max_tokens for r in requests),
            max(r.max_tokens for r in requests),
        )

    assert bounds(few) == bounds(REQUESTS) and bounds(few)[0] == tuple(range(9))


def test_completions_come_out_the_same():
    drawn = [Completed(3, [5, 6], "stop"), Completed(0, [1], "loop")]
    assert jobs.completions_of(over_the_line(jobs.completions_message(drawn)), REQUESTS) == drawn


@pytest.mark.parametrize(
    "line",
    [
        [12, [1], "stop"],
        [-1, [1], "stop"],
        [True, [1], "stop"],
        [0, [], "stop"],
        [0, [1] * 41, "length"],
        [0, [1, NO_TOKEN], "stop"],
        [0, [1, "2"], "stop"],
        [0, [1], "done"],
        [0, [1]],
        "x",
    ],
)
def test_what_cannot_be_a_completion_is_not_taken(line):
    with pytest.raises(Lost, match="no completion"):
        jobs.completions_of([[1, [5], "stop"], line], REQUESTS)


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden", "a\\b", "a\0"])
def test_an_adapter_is_written_into_its_folder_alone(name):
    message = over_the_line(JOB.message(REQUESTS[:1]))
    message["job"]["files"] = [[name, 1]]
    with pytest.raises(Lost, match="does not understand"):
        Job.of(message)


@pytest.mark.parametrize(
    "field, value", [("policies", [[{"temperature": -1}]]), ("rows", None), ("bounds", {}), ("files", [["a", -1]])]
)
def test_a_job_that_is_not_understood_is_not_taken(field, value):
    message = over_the_line(JOB.message(REQUESTS[:1]))
    message["job"] |= {field: value}
    if field == "rows":
        del message["job"]["rows"]
    with pytest.raises(Lost):
        Job.of(message)
