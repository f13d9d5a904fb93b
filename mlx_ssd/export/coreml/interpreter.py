"""Runs a saved Core ML package's ML program in PyTorch, from the package's own files.

Apple's runtime exists on Apple's systems alone, and coremltools has no interpreter. This one knows the operations that
the exports consist of (semantics: https://apple.github.io/coremltools/source/coremltools.converters.mil.mil.ops.defs.html)
and refuses any other. In float16 every operation's result is rounded to what the program says it stores; within an
operation sums are float32. In float32 nothing but the stored weights is rounded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mlx_ssd.errors import BadInput
from mlx_ssd.export.coreml.tools import coremltools

Arguments = dict[str, Any]
INTEGERS = {"int32": torch.int32, "int16": torch.int16, "int8": torch.int8, "uint8": torch.uint8}


class Interpreter:
    """One function of a package, with its state: what it has written stays for the next call.

    `function` None is the default one. Raises BadInput where the package cannot be read, has no such function, or
    holds an operation that is not known here.
    """

    def __init__(self, package: Path, function: str | None = None, dtype: torch.dtype = torch.float16):
        self.dtype = dtype
        program, description = _read(package)
        self.functions = list(program.functions)
        name = function or description.defaultFunctionName or "main"
        if name not in program.functions:
            raise BadInput(f"{package} has no function {name}; it has {', '.join(self.functions)}")
        self._function = program.functions[name]
        self._operations = [op for op in self._function.operations if op.op_type != "const"]
        unknown = {op.op_type for op in self._operations} - set(OPERATIONS) - {COMPRESSED}
        if unknown:
            raise BadInput(f"{package} holds the operation {sorted(unknown)[0]}, which is not known to the interpreter")
        described = next((f for f in description.functions if f.name == name), description)
        self.state_shapes = {s.name: tuple(s.type.stateType.arrayType.shape) for s in described.state}
        self._in_place = {op.name for op in self._operations if self._may_write(op)}
        self._constants: dict[str, Any] = {}
        self.reset()

    def _may_write(self, op: Any) -> bool:
        """Whether a slice_update of a state may write where it stands: nobody sees the value before it any more.

        A copy of a 4B model's state for every layer of every token would take hours.
        """
        if op.op_type != "slice_update" or op.x.op is None or op.x.op.op_type not in ("read_state", UPDATE):
            return False
        if op.x.op.op_type == UPDATE and len(op.x.op.value.child_ops) > 1:
            return False
        users = [user for user in self._operations if user in op.x.child_ops]
        reads = [user for user in self._operations if user.op_type == "read_state"]
        once = len({user.input.name for user in reads}) == len(reads)
        return once and users[-1] is op and all(user.op_type in ("slice_by_index", "slice_update") for user in users)

    def reset(self) -> None:
        """Begin anew: states are zero."""
        self.states = {name: torch.zeros(shape, dtype=self.dtype) for name, shape in self.state_shapes.items()}

    @torch.no_grad()
    def __call__(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The function's outputs by name."""
        values: dict[str, Any] = {}
        for name in self._function.inputs:
            # A state is passed about by its name: operations read and write it where it stands.
            values[name] = name if name in self.states else self._stored(inputs[name], self._function.inputs[name])
        for op in self._operations:
            if op.op_type == COMPRESSED:
                continue
            arguments = {key: self._value(var, values) for key, var in op.inputs.items() if var is not None}
            if op.name in self._in_place:
                arguments["in_place"] = True
            results = OPERATIONS[op.op_type](self, arguments)
            for var, result in zip(op.outputs, results if isinstance(results, tuple) else (results,), strict=True):
                values[var.name] = self._stored(result, var)
        return {var.name: values[var.name] for var in self._function.outputs}

    def weight(self, name: str) -> np.ndarray:
        """A weight in float32: the constant of this name, or what its integers stand for."""
        for op in self._function.operations:
            if op.op_type in ("const", COMPRESSED) and op.name in (name, f"{name}_quantized"):
                value = op.materialized_val_inference() if op.op_type == COMPRESSED else op.outputs[0].val
                return np.asarray(value, dtype=np.float32)
        raise BadInput(f"the package holds no weight {name}")

    def _value(self, var: Any, values: dict[str, Any]) -> Any:
        if isinstance(var, (list, tuple)):
            return [self._value(one, values) for one in var]
        if var.name in values:
            return values[var.name]
        if var.name not in self._constants:
            found = var.op.materialized_val_inference() if var.op.op_type == COMPRESSED else var.val
            self._constants[var.name] = found if isinstance(found, str) else self._stored(_tensor(found), var)
        return self._constants[var.name]

    def _stored(self, x: Tensor, var: Any) -> Tensor:
        if not x.is_floating_point():
            return x
        return x.to(torch.float32 if var.dtype.__name__ == "fp32" else self.dtype)


def _read(package: Path) -> tuple[Any, Any]:
    """(program, model description)."""
    ct = coremltools()
    from coremltools.converters.mil.frontend.milproto.load import load

    try:
        model = ct.models.MLModel(str(package), skip_model_load=True)
        spec = model.get_spec()
        return load(spec, spec.specificationVersion, model.weights_dir), spec.description
    except Exception as error:  # whatever the reader meets in a damaged package
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise BadInput(f"{package} cannot be read: {reason}") from error


def _tensor(value: Any) -> Tensor:
    array = np.asarray(value)
    if array.dtype == np.uint16:  # torch computes little in it
        array = array.astype(np.int32)
    return torch.from_numpy(array if array.flags.writeable else array.copy())


UPDATE = "coreml_update_state"
COMPRESSED = "constexpr_blockwise_shift_scale"  # integers and scales of a weight: a constant


def _cast(_: Interpreter, a: Arguments) -> Tensor:
    kind = str(a["dtype"])
    if kind == "uint16":  # as in _tensor; what does not fit wraps
        return a["x"].to(torch.int32) & 0xFFFF
    return a["x"].to(INTEGERS[kind]) if kind in INTEGERS else a["x"].float() if kind != "bool" else a["x"].bool()


def _gather(_: Interpreter, a: Arguments) -> Tensor:
    x, indices, axis = a["x"], a["indices"].long(), int(a["axis"])
    indices = torch.where(indices < 0, indices + x.shape[axis], indices)
    found = x.index_select(axis, indices.reshape(-1))
    return found.reshape([*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]])


def _divide(_: Interpreter, a: Arguments) -> Tensor:
    whole = not a["x"].is_floating_point()
    return torch.div(a["x"], a["y"], rounding_mode="trunc" if whole else None)


def _expand(_: Interpreter, a: Arguments) -> Tensor:
    x = a["x"]
    for axis in sorted(_integers(a["axes"])):
        x = x.unsqueeze(axis)
    return x


def _squeeze(_: Interpreter, a: Arguments) -> Tensor:
    return a["x"].squeeze(tuple(_integers(a["axes"])))


def _concat(_: Interpreter, a: Arguments) -> Tensor:
    values = [value.reshape(1) if value.ndim == 0 else value for value in a["values"]]
    return torch.cat(values, int(a["axis"]))


def _reshape(_: Interpreter, a: Arguments) -> Tensor:
    shape = [a["x"].shape[i] if size == 0 else size for i, size in enumerate(_integers(a["shape"]))]
    return a["x"].reshape(shape)


def _linear(_: Interpreter, a: Arguments) -> Tensor:
    return F.linear(a["x"], a["weight"], a.get("bias"))


def _rsqrt(_: Interpreter, a: Arguments) -> Tensor:
    return torch.rsqrt(a["x"] + a["epsilon"].to(a["x"].dtype))


def _mean(_: Interpreter, a: Arguments) -> Tensor:
    return a["x"].float().mean(_integers(a["axes"]), keepdim=bool(a["keep_dims"]))


def _max(_: Interpreter, a: Arguments) -> Tensor:
    return a["x"].amax(_integers(a["axes"]), keepdim=bool(a["keep_dims"]))


def _attention(_: Interpreter, a: Arguments) -> Tensor:
    return F.scaled_dot_product_attention(a["query"], a["key"], a["value"], attn_mask=a.get("attn_mask"))


def _read_state(run: Interpreter, a: Arguments) -> Tensor:
    return run.states[a["input"]]


def _write_state(run: Interpreter, a: Arguments) -> Tensor:
    """Of coreml_update_state, whose result is the state's new value."""
    run.states[a["state"]] = a["value"]
    return a["value"]


def _slice(_: Interpreter, a: Arguments) -> Tensor:
    return a["x"][_slices(a)].clone()  # what is sliced may be a state that is written in place


def _slice_update(_: Interpreter, a: Arguments) -> Tensor:
    x, where = a["x"] if a.get("in_place") else a["x"].clone(), _slices(a)
    if x[where].shape != a["update"].shape:
        raise BadInput(f"a slice of {list(x[where].shape)} is to take {list(a['update'].shape)}: past the cache's end?")
    x[where] = a["update"]
    return x


def _slices(a: Arguments) -> tuple[slice | int, ...]:
    """Where slice_by_index and slice_update reach: a masked `begin` or `end` counts for nothing."""
    shape, found = a["x"].shape, []
    begin, end = _integers(a["begin"]), _integers(a["end"])
    stride = _integers(a["stride"]) if "stride" in a else [1] * len(shape)
    no_begin, no_end, squeeze = (
        [bool(flag) for flag in a[key]] if key in a else [False] * len(shape)
        for key in ("begin_mask", "end_mask", "squeeze_mask")
    )
    for i, size in enumerate(shape):
        first = begin[i] + size if begin[i] < 0 else begin[i]
        last = end[i] + size if end[i] < 0 else end[i]
        across = slice(None if no_begin[i] else first, None if no_end[i] else last, stride[i])
        found.append(first if squeeze[i] else across)
    return tuple(found)


def _integers(values: Tensor) -> list[int]:
    return [int(value) for value in values.reshape(-1)]


OPERATIONS: dict[str, Callable[[Interpreter, Arguments], Tensor | tuple[Tensor, ...]]] = {
    "shape": lambda _, a: torch.tensor(a["x"].shape, dtype=torch.int32),
    "cast": _cast,
    "gather": _gather,
    "add": lambda _, a: a["x"] + a["y"],
    "sub": lambda _, a: a["x"] - a["y"],
    "mul": lambda _, a: a["x"] * a["y"],
    "real_div": _divide,
    "greater_equal": lambda _, a: a["x"] >= a["y"],
    "abs": lambda _, a: a["x"].abs(),
    "rsqrt": _rsqrt,
    "silu": lambda _, a: F.silu(a["x"]),
    "reduce_mean": _mean,
    "reduce_max": _max,
    "select": lambda _, a: torch.where(a["cond"].bool(), a["a"], a["b"]),
    "linear": _linear,
    "scaled_dot_product_attention": _attention,
    "expand_dims": _expand,
    "squeeze": _squeeze,
    "concat": _concat,
    "split": lambda _, a: tuple(a["x"].split(_integers(a["split_sizes"]), int(a["axis"]))),
    "reshape": _reshape,
    "transpose": lambda _, a: a["x"].permute(_integers(a["perm"])),
    "tile": lambda _, a: a["x"].repeat(_integers(a["reps"])),
    "slice_by_index": _slice,
    "slice_update": _slice_update,
    "read_state": _read_state,
    UPDATE: _write_state,
}
