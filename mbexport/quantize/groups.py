"""Which tensors of a network must have their channels scaled alike, if at all."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

    from mbexport.quantize.network import Network

_GATES = {"HardSigmoid", "Sigmoid"}
_FLATTENING = {"Flatten", "Reshape"}


@dataclass
class Group:
    """Tensors whose channels must be scaled alike."""

    tensors: set[str] = field(default_factory=set)
    shifts: bool = True
    """Whether they may be shifted too, each by its own mean."""
    fixed: bool = False
    """Whether something reads or makes one of them that cannot be scaled."""


def groups_of(network: Network) -> list[Group]:
    """Every tensor of the network is in one group."""
    grouping = _Grouping(network)
    for tensor in [*network.inputs, *network.outputs]:
        grouping.of(tensor).fixed = True
    for node in network.nodes:
        grouping.add(node)
    return grouping.groups


class _Grouping:
    def __init__(self, network: Network) -> None:
        self._network = network
        self._of: dict[str, Group] = {}

    @property
    def groups(self) -> list[Group]:
        return list({id(group): group for group in self._of.values()}.values())

    def of(self, tensor: str) -> Group:
        return self._of.setdefault(tensor, Group({tensor}))

    def add(self, node: onnx.NodeProto) -> None:
        """What a node asks of the tensors around it."""
        flowing, output = list(self._network.flowing(node)), node.output[0]
        product = self._network.products.get(output)
        if product is not None:
            # Padding is 0 whatever the shift.
            padded = product.kernel[0, 0].size > 1 or any(product.integers("pads", []))
            self.of(product.input).shifts &= not padded
            self.of(output)
        elif self._is_mean(node) or (node.op_type == "Add" and len(flowing) == len(node.input)):
            self._join([*flowing, output])
        elif node.op_type == "Relu":
            self._join([*flowing, output]).shifts = False
        elif node.op_type == "Mul" and len(flowing) == len(node.input) and (gate := self._gate(node)) is not None:
            self._join([*(name for name in flowing if name != gate), output]).shifts = False
            self.of(gate).fixed = True
        else:
            for tensor in [*flowing, *node.output]:
                self.of(tensor).fixed = True

    def _join(self, tensors: list[str]) -> Group:
        into = self.of(tensors[0])
        for other in map(self.of, tensors[1:]):
            if other is not into:
                into.tensors |= other.tensors
                into.shifts &= other.shifts
                into.fixed |= other.fixed
                self._of.update(dict.fromkeys(other.tensors, into))
        return into

    def _is_mean(self, node: onnx.NodeProto) -> bool:
        """A global pool, or what takes away the axes that it leaves; what else a Reshape may do, its result tells."""
        if node.op_type in _FLATTENING and node.input[0] in self._network.makers:
            node = self._network.makers[node.input[0]]
        return node.op_type == "GlobalAveragePool"

    def _gate(self, node: onnx.NodeProto) -> str | None:
        """The gate of a squeeze-excite, which scales a map; None for any other Mul."""
        makers = [self._network.makers.get(name) for name in node.input]
        gates = [maker is not None and maker.op_type in _GATES for maker in makers]
        return str(node.input[gates.index(True)]) if sorted(gates) == [False, True] else None
