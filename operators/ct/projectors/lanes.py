"""A small SIMD register for numba kernels: one number for each image of a batch."""

# numba keeps compiled kernels until the file that they are in changes: whoever works on this one removes the
# __pycache__ beside it.
from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic, models, register_model

_intrinsic: Any = intrinsic


class Lanes(types.Type):
    """The numba type of ``count`` numbers of type ``dtype`` that are worked on at once."""

    def __init__(self, dtype: Any, count: int) -> None:
        self.dtype = dtype
        self.count = count
        super().__init__(name=f"Lanes({dtype}, {count})")


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):
    """Lanes are one LLVM vector, which the compiler keeps in a register."""

    def __init__(self, manager: Any, lanes: Lanes) -> None:
        scalar = manager.lookup(lanes.dtype).get_value_type()
        super().__init__(manager, lanes, ir.VectorType(scalar, lanes.count))


def _pointer(context: Any, builder: Any, array_type: Any, array: Any, offset: Any, lanes: Any) -> Any:
    """Return the address of the lanes that start at element ``offset`` of a flat contiguous array."""
    data = context.make_array(array_type)(context, builder, array).data
    vector = context.get_value_type(lanes)
    return builder.bitcast(builder.gep(data, [offset]), vector.as_pointer())


def _align(lanes: Any) -> int:
    """Return the alignment that every array element has, in bytes."""
    return int(lanes.dtype.bitwidth // 8)


def _splat(context: Any, builder: Any, lanes: Any, scalar: Any) -> Any:
    """Return a vector with ``scalar`` in every lane."""
    vector = context.get_value_type(lanes)
    empty = ir.Constant(vector, ir.Undefined)
    zero = ir.Constant(ir.IntType(32), 0)
    one = builder.insert_element(empty, scalar, zero)
    mask = ir.Constant(ir.VectorType(ir.IntType(32), lanes.count), [0] * lanes.count)
    return builder.shuffle_vector(one, empty, mask)


@_intrinsic
def load(typing: Any, array: Any, offset: Any, count: Any) -> Any:
    """``load(array, offset, count)``: the ``len(count)`` lanes from element ``offset`` on."""
    lanes = Lanes(array.dtype, count.count)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value = builder.load(_pointer(context, builder, array, arguments[0], arguments[1], lanes))
        value.align = _align(lanes)
        return value

    return lanes(array, types.int64, count), generate


@_intrinsic
def store(typing: Any, array: Any, offset: Any, value: Any) -> Any:
    """``store(array, offset, value)``: write the lanes from element ``offset`` on."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = _pointer(context, builder, array, arguments[0], arguments[1], value)
        builder.store(arguments[2], pointer).align = _align(value)
        return context.get_dummy_value()

    return types.void(array, types.int64, value), generate


@_intrinsic
def zeros(typing: Any, array: Any, count: Any) -> Any:
    """``zeros(array, count)``: lanes of zeros of the array's dtype."""
    lanes = Lanes(array.dtype, count.count)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return ir.Constant(context.get_value_type(lanes), None)

    return lanes(array, count), generate


@_intrinsic
def multiply_add(typing: Any, total: Any, factor: Any, value: Any) -> Any:
    """``multiply_add(total, factor, value)``: total + factor * value, rounded once, for a scalar factor."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        factors = _splat(context, builder, total, arguments[1])
        vector = context.get_value_type(total)
        kind = f"v{total.count}f{total.dtype.bitwidth}"
        function = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(vector, [vector] * 3), f"llvm.fma.{kind}"
        )
        return builder.call(function, [factors, arguments[2], arguments[0]])

    return total(total, total.dtype, total), generate


@_intrinsic
def add(typing: Any, first: Any, second: Any) -> Any:
    """``add(first, second)``: the sum of two lanes."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fadd(arguments[0], arguments[1])

    return first(first, first), generate
