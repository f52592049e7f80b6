"""How much a graph may take: a few hundred bytes of known operators can ask for all memory there is."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from sonoloop.models.card import IMAGES, OUTPUTS
from sonoloop.models.graph_shapes import Inputs, Node, Tensor, compute
from sonoloop.values import CLASSES

# for a pixel of the input: values that are alive at once, beside the weights, and multiplications
MAX_VALUES, MAX_WORK = 1 << 10, 1 << 22
# values of a run; 4 GiB in float32
MAX_RUN_VALUES = 1 << 30
# what one value costs to read or write, in multiplications
_MOVING = 16


@dataclass(slots=True)
class Graph:
    """A graph that was read: what it stores and what it computes, in order."""

    size: int
    channels: int = 1
    stored: dict[str, Tensor] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)
    _checked: set[int] = field(default_factory=set)

    def check_batch(self, batch: int) -> None:
        """Refuse to run so many images at once: a `MemoryError` where fewer may do, else a `ValueError`."""
        if batch in self._checked:
            return
        values, work = self._measure(batch)
        # weights may be cast once
        values -= sum(math.prod(each.shape) for each in self.stored.values())
        pixels = batch * self.size**2
        if values > (most := min(pixels * MAX_VALUES, MAX_RUN_VALUES)):
            told = f"it takes {values:,} values at once to compute {pixels:,} pixels, more than {most:,}"
            raise MemoryError(told) if batch > 1 and most == MAX_RUN_VALUES else ValueError(told)
        if work > (most := pixels * MAX_WORK):
            raise ValueError(
                f"it takes {work:,} multiplications to compute {pixels:,} pixels, more than {most:,}"
            )
        self._checked.add(batch)

    def _measure(self, batch: int) -> tuple[int, int]:
        """Count the most values that are alive at once, and the multiplications."""
        tensors = {
            **self.stored,
            IMAGES: Tensor((batch, self.channels, self.size, self.size), is_fixed=False),
        }
        last = {name: place for place, node in enumerate(self.nodes) for name in node.inputs}
        alive = most = work = 0
        for place, node in enumerate(self.nodes):
            inputs = [tensors[name] if name else None for name in node.inputs]
            made = compute(node, inputs)
            tensors.update(zip(node.outputs, made, strict=True))
            alive += sum(math.prod(each.shape) for each in made)
            extra, multiplied = _inside(node, inputs, made[0])
            most = max(most, alive + extra)
            work += multiplied + _MOVING * sum(math.prod(each.shape) for each in [*inputs, *made] if each)
            for name in {*node.inputs, *node.outputs}:
                # what nothing takes is dropped at once
                if (
                    name
                    and last.get(name, place) == place
                    and not tensors[name].is_fixed
                    and name not in (IMAGES, *OUTPUTS)
                ):
                    alive -= math.prod(tensors[name].shape)
        for name, wanted in zip(
            OUTPUTS, ((batch, 1, self.size, self.size), (batch, len(CLASSES))), strict=True
        ):
            if tensors[name].shape != wanted:
                raise ValueError(f"for {batch} images {name} has the shape {tensors[name].shape}")
        return most, work


def _inside(node: Node, inputs: Inputs, made: Tensor) -> tuple[int, int]:
    """Count the values that an operator needs while it computes, and its multiplications."""
    size, shapes = math.prod(made.shape), [each.shape if each else () for each in inputs]
    match node.kind:
        case "Conv":
            return 0, size * math.prod(shapes[1][1:])
        case "ConvTranspose":
            # a column of the whole kernel for each pixel
            columns = math.prod(shapes[0]) // shapes[0][1] * math.prod(shapes[1][1:])
            return columns, columns * shapes[0][1]
        case "MatMul" | "Gemm":
            inner = shapes[0][-2 if node.integer("transA", 0) else -1]
            return 0, size * inner
        case "MaxPool" | "AveragePool":
            return 0, size * math.prod(node.attributes["kernel_shape"])
    return 0, 0
