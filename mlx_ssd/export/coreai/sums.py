"""A program whose float16 products are summed in float32, as a GPU sums them.

On Linux the runtime adds up float16 products in float16: of 4,096 terms it is off by 1e-2, which would hide what a
conversion did. The program is that of the file but for casts around its matrix products, and computes faster too.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

PRODUCTS = ("coreai.batch_matmul", "coreai.decomposable.broadcasting_batch_matmul")


def widen(program: Any) -> None:
    """Change an AIProgram so. The packages' public interface has no way to, and `VERSIONS` are pinned."""
    for product in [found for found in _operations(program._module._mlir_module.operation) if found.name in PRODUCTS]:
        _widen(product)


def _widen(product: Any) -> None:
    from coreai._compiler.dialects import coreai
    from coreai._compiler.ir import F16Type, F32Type, InsertionPoint, RankedTensorType

    types = [RankedTensorType(value.type) for value in (*product.operands, product.results[0])]
    if not all(isinstance(one.element_type, F16Type) for one in types):
        return
    with product.context, product.location:
        wide = [RankedTensorType.get(one.shape, F32Type.get()) for one in types]
        with InsertionPoint(product):
            for place, operand in enumerate(product.operands):
                product.operands[place] = coreai.CastOp(wide[place], operand).result
        result = product.results[0]
        result.set_type(wide[-1])
        with InsertionPoint.after(product):
            narrow = coreai.CastOp(types[-1], result)
        result.replace_all_uses_except(narrow.result, narrow.operation)


def _operations(operation: Any) -> Iterator[Any]:
    for region in operation.regions:
        for block in region.blocks:
            for inner in block.operations:
                yield inner.operation
                yield from _operations(inner.operation)
