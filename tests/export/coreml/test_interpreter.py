"""The interpreter's operations against PyTorch's own, on programs of a few operations."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("coremltools")

from mlx_ssd.errors import BadInput  # noqa: E402
from mlx_ssd.export.coreml.interpreter import Interpreter  # noqa: E402
from mlx_ssd.export.coreml.tools import coremltools, no_bars  # noqa: E402

ct = coremltools()
from coremltools.converters.mil.mil import Builder as mb  # noqa: E402
from coremltools.converters.mil.mil import types  # noqa: E402

DRAW = np.random.default_rng(0)
X = DRAW.normal(size=(2, 3, 4)).astype(np.float32)
Y = DRAW.normal(size=(2, 3, 4)).astype(np.float32)
W = DRAW.normal(size=(5, 4)).astype(np.float32)
BIAS = DRAW.normal(size=5).astype(np.float32)
QUERY, KEY, VALUE = (DRAW.normal(size=(1, 2, n, 8)).astype(np.float32) for n in (3, 5, 5))
MASK = np.where(DRAW.random((1, 1, 3, 5)) < 0.3, -1e4, 0).astype(np.float32)

# name: (what MIL builds of the input x [2, 3, 4], what torch makes of it)
CASES = {
    "shape": (lambda x: mb.shape(x=x), lambda x: torch.tensor([2, 3, 4])),
    "cast": (lambda x: mb.cast(x=mb.mul(x=x, y=3.0), dtype="int32"), lambda x: (3 * x).int()),
    "gather": (lambda x: mb.gather(x=x, indices=[2, 0, -1], axis=1), lambda x: x[:, [2, 0, 2]]),
    "gather_matrix": (lambda x: mb.gather(x=x, indices=[[1, 0]], axis=0), lambda x: x[torch.tensor([[1, 0]])]),
    "add": (lambda x: mb.add(x=x, y=Y), lambda x: x + torch.from_numpy(Y)),
    "sub": (lambda x: mb.sub(x=x, y=Y), lambda x: x - torch.from_numpy(Y)),
    "mul": (lambda x: mb.mul(x=x, y=Y), lambda x: x * torch.from_numpy(Y)),
    "real_div": (lambda x: mb.real_div(x=x, y=Y), lambda x: x / torch.from_numpy(Y)),
    "abs": (lambda x: mb.abs(x=x), torch.abs),
    "rsqrt": (
        lambda x: mb.rsqrt(x=mb.abs(x=x), epsilon=0.1),
        lambda x: torch.rsqrt(x.abs() + 0.1),
    ),
    "silu": (lambda x: mb.silu(x=x), torch.nn.functional.silu),
    "reduce_mean": (lambda x: mb.reduce_mean(x=x, axes=[-1, 0], keep_dims=True), lambda x: x.mean((-1, 0), True)),
    "reduce_max": (lambda x: mb.reduce_max(x=x, axes=[1], keep_dims=False), lambda x: x.amax(1)),
    "select": (
        lambda x: mb.select(cond=Y > 0, a=x, b=Y),
        lambda x: torch.where(torch.from_numpy(Y > 0), x, torch.from_numpy(Y)),
    ),
    "linear": (
        lambda x: mb.linear(x=x, weight=W, bias=BIAS),
        lambda x: torch.nn.functional.linear(x, torch.from_numpy(W), torch.from_numpy(BIAS)),
    ),
    "expand_dims": (lambda x: mb.expand_dims(x=x, axes=[0, 2]), lambda x: x[None, :, None]),
    "squeeze": (lambda x: mb.squeeze(x=mb.expand_dims(x=x, axes=[1, -1]), axes=[1]), lambda x: x[..., None]),
    "concat": (lambda x: mb.concat(values=[x, Y], axis=-1), lambda x: torch.cat([x, torch.from_numpy(Y)], -1)),
    "split": (lambda x: mb.split(x=x, split_sizes=[1, 3], axis=2)[1], lambda x: x[..., 1:]),
    "reshape": (lambda x: mb.reshape(x=x, shape=[4, -1]), lambda x: x.reshape(4, 6)),
    "reshape_keeps_where_it_says_0": (lambda x: mb.reshape(x=x, shape=[0, -1]), lambda x: x.reshape(2, 12)),
    "transpose": (lambda x: mb.transpose(x=x, perm=[2, 0, 1]), lambda x: x.permute(2, 0, 1)),
    "tile": (lambda x: mb.tile(x=x, reps=[1, 2, 3]), lambda x: x.repeat(1, 2, 3)),
    "slice_by_index": (
        lambda x: mb.slice_by_index(
            x=x, begin=[1, 0, -3], end=[0, 2, 9], stride=[1, 1, 2],
            end_mask=[False, False, True], squeeze_mask=[True, False, False],
        ),
        lambda x: x[1, 0:2, 1::2],
    ),
    "slice_by_index_begin_mask": (
        lambda x: mb.slice_by_index(x=x, begin=[1, 1, 1], end=[2, 3, -1], begin_mask=[True, False, False]),
        lambda x: x[:2, 1:3, 1:-1],
    ),
    "slice_update": (
        lambda x: mb.slice_update(
            x=x, update=Y[0, :2], begin=[1, 1, 0], end=[2, 3, 0],
            end_mask=[False, False, True], squeeze_mask=[True, False, False],
        ),
        lambda x: torch.cat([x[:1], torch.cat([x[1, :1], torch.from_numpy(Y[0, :2])])[None]]),
    ),
    "attention": (
        lambda x: mb.scaled_dot_product_attention(
            query=QUERY, key=mb.add(x=KEY, y=scalar(x)), value=VALUE, attn_mask=MASK
        ),
        lambda x: torch.softmax(
            torch.from_numpy(QUERY) @ (torch.from_numpy(KEY) + x[0, 0, 0]).mT / 8**0.5 + torch.from_numpy(MASK), -1
        )
        @ torch.from_numpy(VALUE),
    ),
}  # fmt: skip


def scalar(x):
    return mb.slice_by_index(x=x, begin=[0, 0, 0], end=[1, 1, 1], squeeze_mask=[True, True, True])


def package(path, build):
    """A program of one input `x` [2, 3, 4] in float32, as it is built: no pass rewrites it."""

    @mb.program(input_specs=[mb.TensorSpec(shape=X.shape)], opset_version=ct.target.iOS18)
    def program(x):
        return build(x)

    with no_bars():
        ct.convert(
            program,
            minimum_deployment_target=ct.target.iOS18,
            compute_precision=ct.precision.FLOAT32,
            pass_pipeline=ct.PassPipeline.EMPTY,
            skip_model_load=True,
        ).save(str(path))
    return path


@pytest.fixture(scope="module")
def all_cases(tmp_path_factory):
    """One program with an output for each case."""

    def build(x):
        return tuple(mb.identity(x=made, name=name) for name, (make, _) in CASES.items() for made in [make(x)])

    return package(tmp_path_factory.mktemp("mil") / "cases.mlpackage", build)


@pytest.fixture(scope="module")
def results(all_cases):
    with pytest.MonkeyPatch.context() as patch:
        from mlx_ssd.export.coreml import interpreter

        patch.setitem(interpreter.OPERATIONS, "identity", lambda _, a: a["x"])
        return Interpreter(all_cases, dtype=torch.float32)({"x": torch.from_numpy(X)})


@pytest.mark.parametrize("name", CASES)
def test_an_operation_is_torchs(name, results):
    expected = CASES[name][1](torch.from_numpy(X))
    assert results[name].shape == expected.shape
    assert torch.allclose(results[name].double(), expected.double(), rtol=1e-5, atol=1e-6)


def test_an_operation_that_is_not_known_is_named(all_cases):
    with pytest.raises(BadInput, match="holds the operation identity, which is not known"):
        Interpreter(all_cases)


def test_whole_numbers_are_divided_as_such(tmp_path):
    made = package(tmp_path / "p.mlpackage", lambda x: mb.real_div(x=mb.shape(x=x), y=np.array([2, 2, 3], np.int32)))
    assert [*Interpreter(made)({"x": torch.from_numpy(X)}).values()][0].tolist() == [1, 1, 1]


def test_what_does_not_fit_16_bits_wraps(tmp_path):
    """As on a device: a token's id that was cast so would be another token's."""
    made = package(tmp_path / "p.mlpackage", lambda x: mb.cast(x=mb.mul(x=x, y=70_000.0), dtype="uint16"))
    found = [*Interpreter(made, dtype=torch.float32)({"x": torch.ones(2, 3, 4)}).values()][0]
    assert (found == 70_000 - 65_536).all()


def test_no_such_function_and_no_such_package(all_cases, tmp_path):
    with pytest.raises(BadInput, match="no function student; it has main"):
        Interpreter(all_cases, "student")
    with pytest.raises(BadInput, match="cannot be read"):
        Interpreter(tmp_path / "none.mlpackage")


@pytest.fixture(scope="module")
def stateful(tmp_path_factory):
    """Adds x to the second row of a state [3, 4]; gives its first two rows before and after."""

    @mb.program(
        input_specs=[mb.TensorSpec(shape=(1, 4)), mb.StateTensorSpec((3, 4), dtype=types.fp16)],
        opset_version=ct.target.iOS18,
    )
    def program(x, kept):
        before = mb.read_state(input=kept)
        row = mb.slice_by_index(x=before, begin=[1, 0], end=[2, 4])
        written = mb.slice_update(
            x=before, update=mb.add(x=row, y=mb.cast(x=x, dtype="fp16")), begin=[1, 0], end=[2, 4]
        )
        after = mb.coreml_update_state(state=kept, value=written)
        old = mb.slice_by_index(x=before, begin=[0, 0], end=[2, 4], name="old")
        return old, mb.slice_by_index(x=after, begin=[0, 0], end=[2, 4], name="new")

    path = tmp_path_factory.mktemp("mil") / "state.mlpackage"
    with no_bars():
        how = {"minimum_deployment_target": ct.target.iOS18, "pass_pipeline": ct.PassPipeline.EMPTY}
        ct.convert(program, skip_model_load=True, **how).save(str(path))
    return path


def test_a_state_stays_from_call_to_call_and_its_old_value_is_still_seen(stateful):
    model, ones = Interpreter(stateful), torch.ones(1, 4)
    for count in range(3):
        old, new = model({"x": ones}).values()
        assert old[0].tolist() == new[0].tolist() == [0] * 4
        assert (old[1].tolist(), new[1].tolist()) == ([count] * 4, [count + 1] * 4)
    model.reset()
    assert next(iter(model({"x": ones}).values())).abs().max() == 0
