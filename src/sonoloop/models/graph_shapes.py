"""The shapes of what the operators of a graph give, known before it runs.

Every operator has a rule here that gives the shape of its answer, exactly, or refuses. Shapes may be computed
by the graph, of constants and of the number of images: such small tensors are followed with their values.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

_MAX_DIMENSIONS = 8
# tensors of more values are no shapes
MOST_KNOWN = 64
# whole numbers beyond are not followed: some engines compute with 32 bits, and float32 holds those below the
# second; an end of a slice may be the first, and mean all there is, whichever way it goes
_LARGEST, _LARGEST_FLOAT = (1 << 31) - 1, 1 << 24
# ONNX's numbers of types
_FLOAT, _INT64 = 1, 7
# none takes more than 8 bytes, as texts do
_CASTS = frozenset((1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 16))
_FLOATS = frozenset((1, 10, 11, 16))

# operators that give whole numbers, or true and false, whatever they take
_WHOLE = frozenset(
    """
    And Equal Greater GreaterOrEqual IsInf IsNaN Less LessOrEqual Not Or QuantizeLinear Range Shape Size
    """.split()  # noqa: SIM905 - as a text it can be read
)

Shape: TypeAlias = tuple[int, ...]


class ShapeError(ValueError):
    """An operator cannot give a shape, or none that is known before it runs."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """The shape of a tensor, and its values where shapes may hang on them: int64, or float32."""

    shape: Shape
    values: NDArray[Any] | None = None
    # an engine computes it when it loads the graph, and keeps it
    is_fixed: bool = True
    # of whole numbers
    is_whole: bool = False


@dataclass(frozen=True, slots=True)
class Node:
    """An operation; an input that is left out has no name."""

    kind: str
    inputs: Sequence[str]
    outputs: Sequence[str]
    # numbers, texts, tensors, and lists of numbers
    attributes: Mapping[str, Any]

    def integer(self, name: str, default: int) -> int:
        """Give a whole number."""
        value = self.attributes.get(name, default)
        if not isinstance(value, int):
            raise ShapeError(f"{name} of the operator {self.kind} is no whole number")
        return value

    def integers(self, name: str, default: Sequence[int]) -> list[int]:
        """Give whole numbers, as many as there are in the default."""
        values = self.attributes.get(name, default)
        if not isinstance(values, list | tuple | range) or len(values) != len(default):
            raise ShapeError(f"{name} of the operator {self.kind} are not {len(default)} whole numbers")
        if not all(isinstance(each, int) for each in values):
            raise TypeError
        return [*values]


Inputs: TypeAlias = Sequence[Tensor | None]


def compute(node: Node, inputs: Inputs) -> list[Tensor]:
    """Give the shapes of an operator's answers, and the values of those that are known."""
    fixed = all(each is None or each.is_fixed for each in inputs)
    try:
        if node.kind == "Constant":
            made = [_constant(node)]
        elif node.kind == "Split":
            made = [Tensor(shape, None, fixed, _is_whole(node, inputs)) for shape in _split(node, inputs)]
        else:
            shape = _RULES[node.kind](node, inputs)
            values = _follow(node, inputs, shape) if math.prod(shape) <= MOST_KNOWN else None
            made = [Tensor(shape, values, fixed, _is_whole(node, inputs))]
    except ShapeError:
        raise
    # too few inputs, or axes that are not there
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
        raise ShapeError(f"inputs of the operator {node.kind} do not fit it") from error
    if len(node.outputs) != len(made):
        raise ShapeError(f"the operator {node.kind} gives {len(node.outputs)} tensors")
    for each in made:
        # an empty list may say that there is none
        empty = 0 in each.shape and len(each.shape) > 1
        if empty or len(each.shape) > _MAX_DIMENSIONS or max(each.shape, default=0) > _LARGEST:
            raise ShapeError(f"the operator {node.kind} gives a tensor of the shape {each.shape}")
    return made


def _is_whole(node: Node, inputs: Inputs) -> bool:
    """Whether an operator gives whole numbers."""
    if node.kind == "Cast":
        return node.integer("to", 0) not in _FLOATS
    if node.kind in _WHOLE:
        return True
    told = inputs[1 if node.kind in ("Where", "CastLike", "DequantizeLinear") else 0]
    return told is not None and told.is_whole


def _need(node: Node, tensor: Tensor | None) -> list[Any]:
    """Give the values of a tensor that says a shape."""
    if tensor is None or tensor.values is None:
        raise ShapeError(f"the operator {node.kind} takes a size that only running it tells")
    return tensor.values.reshape(-1).tolist()


def _need_integers(node: Node, tensor: Tensor | None) -> list[int]:
    values = _need(node, tensor)
    if not all(isinstance(each, int) for each in values):
        raise ShapeError(f"the operator {node.kind} takes a size that is no whole number")
    return values


def _optional(inputs: Inputs, place: int) -> Tensor | None:
    return inputs[place] if place < len(inputs) else None


def _shape(inputs: Inputs, place: int = 0) -> Shape:
    tensor = inputs[place]
    if tensor is None:
        raise IndexError
    return tensor.shape


def _axis(axis: int, rank: int) -> int:
    if not -rank <= axis < rank:
        raise IndexError
    return axis % rank


def _axes(axes: Sequence[int], rank: int) -> list[int]:
    found = [_axis(axis, rank) for axis in axes]
    if len({*found}) != len(found):
        raise IndexError
    return found


def _same(node: Node, inputs: Inputs) -> Shape:
    return _shape(inputs)


def _cast(node: Node, inputs: Inputs) -> Shape:
    if node.integer("to", 0) not in _CASTS:
        raise ShapeError(f"a Cast goes to the type {node.integer('to', 0)}")
    return _shape(inputs)


def _divide(node: Node, inputs: Inputs) -> Shape:
    """Divide; whole numbers by nothing that ends the process, as 0 does, and -1 under the least one."""
    one, other = inputs
    whole = (one and one.is_whole) or (other and other.is_whole)
    if whole and not all(0 < each < _LARGEST for each in _need_integers(node, other)):
        raise IndexError
    return _broadcast(node, inputs)


def _broadcast(node: Node, inputs: Inputs) -> Shape:
    return _fit(node, *(_shape(inputs, place) for place in range(len(inputs))))


def _fit(node: Node, *shapes: Shape) -> Shape:
    """Broadcast shapes against each other."""
    try:
        return np.broadcast_shapes(*shapes)
    except ValueError:
        raise ShapeError(f"the operator {node.kind} takes shapes that do not fit: {shapes}") from None


def _concat(node: Node, inputs: Inputs) -> Shape:
    shapes = [_shape(inputs, place) for place in range(len(inputs))]
    axis = _axis(node.integer("axis", 0), len(shapes[0]))
    if len({(*each[:axis], *each[axis + 1 :]) for each in shapes}) != 1 or len({*map(len, shapes)}) != 1:
        raise ShapeError(f"the operator Concat takes shapes that do not fit: {shapes}")
    return (*shapes[0][:axis], sum(each[axis] for each in shapes), *shapes[0][axis + 1 :])


def _constant(node: Node) -> Tensor:
    (name, value), *others = node.attributes.items() or [("", None)]
    if others or name not in ("value", "value_int", "value_ints", "value_float", "value_floats"):
        raise ShapeError("an operator Constant holds no numbers")
    if (name == "value") != isinstance(value, Tensor):
        raise TypeError
    if isinstance(value, Tensor):
        return value
    values = np.asarray(value, np.int64 if "int" in name else np.float32)
    return Tensor(values.shape, values if values.size <= MOST_KNOWN else None, is_whole="int" in name)


def _windows(node: Node, sides: Shape, kernel: Sequence[int]) -> Shape:
    """Count the places of a kernel that slides over an image."""
    count = len(sides)
    if len(kernel) != count:
        raise IndexError
    strides, dilations = (node.integers(name, [1] * count) for name in ("strides", "dilations"))
    pads = node.integers("pads", [0] * 2 * count)
    _check_padding(node, pads)
    if min(*strides, *dilations, *kernel) < 1 or min(pads) < 0:
        raise IndexError
    places = []
    for side, width, stride, dilation, before, after in zip(
        sides, kernel, strides, dilations, pads[:count], pads[count:], strict=True
    ):
        room = side + before + after - (width - 1) * dilation - 1
        steps = -(-room // stride) if node.integer("ceil_mode", 0) else room // stride
        # engines differ in whether a window may lie wholly in the padding
        if room < 0 or (steps > room // stride and steps * stride >= side + before):
            raise ShapeError(f"the kernel of the operator {node.kind} does not fit its image")
        places.append(steps + 1)
    return tuple(places)


def _check_padding(node: Node, pads: Sequence[int]) -> None:
    automatic = node.attributes.get("auto_pad", "NOTSET")
    if automatic != "NOTSET" and (automatic != "VALID" or any(pads)):
        raise ShapeError(f"the operator {node.kind} pads by itself")


def _kernel(node: Node, inputs: Inputs) -> tuple[Shape, Shape]:
    """Give the shapes of the images and of the weights of a convolution."""
    images, weights = _shape(inputs), _shape(inputs, 1)
    if len(images) < 3 or len(weights) != len(images) or 0 in (*images[1:], *weights):
        raise IndexError
    if node.integers("kernel_shape", weights[2:]) != [*weights[2:]] or node.integer("group", 1) < 1:
        raise IndexError
    return images, weights


def _conv(node: Node, inputs: Inputs) -> Shape:
    images, weights = _kernel(node, inputs)
    if images[1] != weights[1] * node.integer("group", 1):
        raise IndexError
    return (images[0], weights[0], *_windows(node, images[2:], weights[2:]))


def _conv_transpose(node: Node, inputs: Inputs) -> Shape:
    images, weights = _kernel(node, inputs)
    count = len(images) - 2
    strides, dilations = (node.integers(name, [1] * count) for name in ("strides", "dilations"))
    pads, more = node.integers("pads", [0] * 2 * count), node.integers("output_padding", [0] * count)
    _check_padding(node, pads)
    if images[1] != weights[0] or "output_shape" in node.attributes:
        raise IndexError
    if min(*strides, *dilations) < 1 or min(*pads, *more) < 0:
        raise IndexError
    sides = [
        (images[2 + n] - 1) * strides[n]
        + more[n]
        + (weights[2 + n] - 1) * dilations[n]
        + 1
        - pads[n]
        - pads[count + n]
        for n in range(count)
    ]
    if min(sides) < 1:
        raise IndexError
    return (images[0], weights[1] * node.integer("group", 1), *sides)


def _pool(node: Node, inputs: Inputs) -> Shape:
    images = _shape(inputs)
    if "kernel_shape" not in node.attributes or len(images) < 3:
        raise IndexError
    kernel = node.integers("kernel_shape", images[2:])
    return (*images[:2], *_windows(node, images[2:], kernel))


def _pool_all(node: Node, inputs: Inputs) -> Shape:
    images = _shape(inputs)
    return (*images[:2], *(1 for _ in images[2:]))


def _expand(node: Node, inputs: Inputs) -> Shape:
    wanted = _need_integers(node, inputs[1])
    if min(wanted, default=0) < 0:
        raise IndexError
    return _fit(node, _shape(inputs), tuple(wanted))


def _flatten(node: Node, inputs: Inputs) -> Shape:
    shape, axis = _shape(inputs), node.integer("axis", 1)
    if not -len(shape) <= axis <= len(shape):
        raise IndexError
    axis += len(shape) if axis < 0 else 0
    return math.prod(shape[:axis]), math.prod(shape[axis:])


def _gather(node: Node, inputs: Inputs) -> Shape:
    shape = _shape(inputs)
    axis = _axis(node.integer("axis", 0), len(shape))
    return (*shape[:axis], *_shape(inputs, 1), *shape[axis + 1 :])


def _gemm(node: Node, inputs: Inputs) -> Shape:
    (rows, inner), (other, columns) = (
        shape[::-1] if node.integer(name, 0) else shape
        for shape, name in ((_shape(inputs), "transA"), (_shape(inputs, 1), "transB"))
    )
    bias = _optional(inputs, 2)
    if inner != other or (bias and _fit(node, bias.shape, (rows, columns)) != (rows, columns)):
        raise IndexError
    return rows, columns


def _matmul(node: Node, inputs: Inputs) -> Shape:
    one, other = _shape(inputs), _shape(inputs, 1)
    # a vector is a row before, and a column after; that side is left out again
    left = one if len(one) > 1 else (1, *one)
    right = other if len(other) > 1 else (*other, 1)
    if left[-1] != right[-2]:
        raise IndexError
    sides = [left[-2]] * (len(one) > 1) + [right[-1]] * (len(other) > 1)
    return (*_fit(node, left[:-2], right[:-2]), *sides)


def _pad(node: Node, inputs: Inputs) -> Shape:
    shape, pads = [*_shape(inputs)], _need_integers(node, inputs[1])
    told = _optional(inputs, 3)
    axes = range(len(shape)) if told is None else _axes(_need_integers(node, told), len(shape))
    for axis, before, after in zip(axes, pads[: len(axes)], pads[len(axes) :], strict=True):
        shape[axis] += before + after
        if shape[axis] < 1:
            raise IndexError
    return tuple(shape)


def _range(node: Node, inputs: Inputs) -> Shape:
    (start,), (stop,), (step,) = (_need_integers(node, inputs[place]) for place in range(3))
    if not step or max(map(abs, (start, stop, step))) > _LARGEST:
        raise IndexError
    return (len(range(start, stop, step)),)


def _reduce(node: Node, inputs: Inputs) -> Shape:
    shape, told = _shape(inputs), _optional(inputs, 1)
    axes = node.attributes.get("axes", []) if told is None else _need_integers(node, told)
    if not axes and node.integer("noop_with_empty_axes", 0):
        return shape
    gone = _axes(axes, len(shape)) if axes else range(len(shape))
    if node.integer("keepdims", 1):
        return tuple(1 if place in gone else side for place, side in enumerate(shape))
    return tuple(side for place, side in enumerate(shape) if place not in gone)


def _reshape(node: Node, inputs: Inputs) -> Shape:
    shape, wanted = _shape(inputs), _need_integers(node, inputs[1])
    if not node.integer("allowzero", 0):
        wanted = [side or shape[place] for place, side in enumerate(wanted)]
    if -1 in wanted:
        others = -math.prod(wanted)
        if others <= 0:
            raise IndexError
        wanted[wanted.index(-1)] = math.prod(shape) // others
    if min(wanted, default=0) < 0 or math.prod(wanted) != math.prod(shape):
        raise IndexError
    return tuple(wanted)


def _resize(node: Node, inputs: Inputs) -> Shape:
    shape = [*_shape(inputs)]
    if node.attributes.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise ShapeError("the operator Resize keeps an aspect ratio")
    if node.attributes.get("coordinate_transformation_mode") == "tf_crop_and_resize":
        raise ShapeError("the operator Resize cuts")
    scales, sizes = (_optional(inputs, place) for place in (2, 3))
    # an empty tensor is as none
    scales = None if scales is None or 0 in scales.shape else scales
    sizes = None if sizes is None or 0 in sizes.shape else sizes
    if (scales is None) == (sizes is None):
        raise IndexError
    axes = _axes(node.attributes.get("axes", range(len(shape))), len(shape))
    if sizes is not None:
        wanted = _need_integers(node, sizes)
    else:
        products = [shape[axis] * scale for axis, scale in zip(axes, _need(node, scales), strict=True)]
        # else it hangs on rounding
        if not all(math.isfinite(side) and side == int(side) < _LARGEST_FLOAT for side in products):
            raise ShapeError(f"the operator Resize takes the factors {_need(node, scales)} of {shape}")
        wanted = [int(side) for side in products]
    if min(wanted, default=1) < 1:
        raise IndexError
    for axis, side in zip(axes, wanted, strict=True):
        shape[axis] = side
    return tuple(shape)


def _shape_of(node: Node, inputs: Inputs) -> Shape:
    return (len(_cut_shape(node, inputs)),)


def _cut_shape(node: Node, inputs: Inputs) -> Shape:
    shape = _shape(inputs)
    return shape[slice(node.integer("start", 0), node.integer("end", len(shape)))]


def _size(node: Node, inputs: Inputs) -> Shape:
    return ()


def _slice(node: Node, inputs: Inputs) -> Shape:
    shape = _shape(inputs)
    cuts = _cuts(node, inputs)
    return tuple(len(range(*cut.indices(side))) for side, cut in zip(shape, cuts, strict=True))


def _cuts(node: Node, inputs: Inputs) -> list[slice]:
    """Give what the operator Slice takes of each side."""
    rank = len(_shape(inputs))
    starts, ends = (_need_integers(node, inputs[place]) for place in (1, 2))
    axes = range(len(starts)) if (told := _optional(inputs, 3)) is None else _need_integers(node, told)
    steps = [1] * len(starts) if (told := _optional(inputs, 4)) is None else _need_integers(node, told)
    cuts = [slice(None)] * rank
    for axis, start, end, step in zip(_axes(axes, rank), starts, ends, steps, strict=True):
        if step < 0 and end >= _LARGEST:
            raise IndexError
        cuts[axis] = slice(start, end, step)
    return cuts


def _split(node: Node, inputs: Inputs) -> list[Shape]:
    shape, told, count = _shape(inputs), _optional(inputs, 1), len(node.outputs)
    axis = _axis(node.integer("axis", 0), len(shape))
    if told is not None:
        parts = _need_integers(node, told)
    else:
        most = -(-shape[axis] // count)
        parts = [most] * (count - 1) + [shape[axis] - most * (count - 1)]
    if len(parts) != count or min(parts) < 0 or sum(parts) != shape[axis]:
        raise IndexError
    return [(*shape[:axis], part, *shape[axis + 1 :]) for part in parts]


def _squeeze(node: Node, inputs: Inputs) -> Shape:
    shape, told = _shape(inputs), _optional(inputs, 1)
    if told is None:
        return tuple(side for side in shape if side != 1)
    gone = _axes(_need_integers(node, told), len(shape))
    # engines take no axes for all
    if not gone or any(shape[place] != 1 for place in gone):
        raise IndexError
    return tuple(side for place, side in enumerate(shape) if place not in gone)


def _tile(node: Node, inputs: Inputs) -> Shape:
    repeats = _need_integers(node, inputs[1])
    if min(repeats, default=0) < 0:
        raise IndexError
    return tuple(side * times for side, times in zip(_shape(inputs), repeats, strict=True))


def _transpose(node: Node, inputs: Inputs) -> Shape:
    shape = _shape(inputs)
    order = node.integers("perm", range(len(shape))[::-1])
    if sorted(order) != [*range(len(shape))]:
        raise IndexError
    return tuple(shape[place] for place in order)


def _unsqueeze(node: Node, inputs: Inputs) -> Shape:
    sides, axes = [*_shape(inputs)], _need_integers(node, inputs[1])
    for place in sorted(_axes(axes, len(sides) + len(axes))):
        sides.insert(place, 1)
    return tuple(sides)


def _follow(node: Node, inputs: Inputs, shape: Shape) -> NDArray[Any] | None:
    """Compute the values of a small tensor, where every engine computes the same."""
    if node.kind == "Shape":
        return np.array(_cut_shape(node, inputs), np.int64)
    if node.kind == "Size":
        return np.array(math.prod(_shape(inputs)), np.int64)
    known = [each.values for each in inputs if each is not None and each.values is not None]
    if not known or len(known) != sum(each is not None for each in inputs):
        return None
    first, made = known[0], None
    match node.kind:
        case "Identity" | "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze":
            made = first.reshape(shape)
        case "Concat":
            made = np.concatenate(known, node.integer("axis", 0))
        case "Gather":
            made = first.take(known[1], node.integer("axis", 0))
        case "Slice":
            made = first[tuple(_cuts(node, inputs))]
        case "Range":
            made = np.arange(*(each.item() for each in known), dtype=np.int64)
        case "Cast":
            kind = {_INT64: np.int64, _FLOAT: np.float32}.get(node.integer("to", 0))
            made = None if kind is None or not _is_sure(first) else first.astype(kind)
        case "Add" | "Sub" | "Mul" | "Div":
            made = _calculate(node.kind, first, known[1])
    return made


_CALCULATIONS: dict[str, Callable[[Any, Any], Any]] = {
    "Add": operator.add,
    "Sub": operator.sub,
    "Mul": operator.mul,
    "Div": operator.truediv,
    "FloorDiv": operator.floordiv,
}


def _calculate(kind: str, one: NDArray[Any], other: NDArray[Any]) -> NDArray[Any] | None:
    """Calculate with whole numbers; None where engines may round or overflow."""
    if one.dtype != other.dtype or not (_is_sure(one) and _is_sure(other)):
        return None
    whole = one.dtype == np.int64
    if kind == "Div" and ((other <= 0).any() or (one < 0).any()):
        return None
    # none of them overflows in float64 or as Python's own
    work = object if whole else np.float64
    calculate = _CALCULATIONS["FloorDiv" if kind == "Div" and whole else kind]
    made = calculate(one.astype(work), other.astype(work))
    made = np.asarray(made)
    most = _LARGEST if whole else _LARGEST_FLOAT
    if any(not -most < each < most or each != int(each) for each in made.reshape(-1).tolist()):
        return None
    return made.astype(one.dtype)


def _is_sure(values: NDArray[Any]) -> bool:
    """Whether all are whole numbers that neither type rounds."""
    most = _LARGEST if values.dtype == np.int64 else _LARGEST_FLOAT
    return bool(((values > -most) & (values < most)).all() and (values == np.floor(values)).all())


# the answers of the first are as large as their first input, those of the second as all of theirs together
_RULES: dict[str, Callable[[Node, Inputs], Shape]] = {
    **dict.fromkeys(
        """
        Abs BatchNormalization CastLike Ceil Clip DequantizeLinear Elu Erf Exp Floor Gelu
        GroupNormalization HardSigmoid HardSwish Identity InstanceNormalization IsInf IsNaN
        LayerNormalization LeakyRelu Log Mish Neg Not QuantizeLinear Reciprocal Relu Selu Sigmoid Sign
        Softmax Softplus Sqrt Swish Tanh
        """.split(),  # noqa: SIM905 - as a text it can be read
        _same,
    ),
    **dict.fromkeys(
        """
        Add And Equal Greater GreaterOrEqual Less LessOrEqual Max Min Mul Or PRelu Pow Sub Where
        """.split(),  # noqa: SIM905 - as a text it can be read
        _broadcast,
    ),
    **dict.fromkeys(("Div", "Mod"), _divide),
    **dict.fromkeys(("ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum"), _reduce),
    **dict.fromkeys(("AveragePool", "MaxPool"), _pool),
    **dict.fromkeys(("GlobalAveragePool", "GlobalMaxPool"), _pool_all),
    "Cast": _cast,
    "Concat": _concat,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "Pad": _pad,
    "Range": _range,
    "Reshape": _reshape,
    "Resize": _resize,
    "Shape": _shape_of,
    "Size": _size,
    "Slice": _slice,
    "Squeeze": _squeeze,
    "Tile": _tile,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
# none holds another graph, reads a file or draws numbers
OPERATORS = frozenset((*_RULES, "Constant", "Split"))
