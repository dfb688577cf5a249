"""Which nodes of the file an engine's nodes are.

Engines rename and fuse. What they tell of a node's origin is taken; two steps more follow from what a product is:
it made what it is named after, and it added what is added to its result. Whatever remains belongs to no node.
"""

from __future__ import annotations

import re
from collections import defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mbexport.operators.work import GraphWork, Work
    from mbexport.runtimes.profiled import ProfiledNode

_PRODUCT = re.compile("conv|gemm|matmul|fullyconnected", re.IGNORECASE)


def attribute(graph: GraphWork, profiled: Sequence[ProfiledNode]) -> list[list[Work]]:
    """For each of the engine's nodes, those of the file that went into it, in its order; each goes into one at most."""
    return _Attribution(graph, profiled).groups()


class _Attribution:
    def __init__(self, graph: GraphWork, profiled: Sequence[ProfiledNode]) -> None:
        self._nodes = graph.nodes
        self._profiled = profiled
        self._makers = {name: index for index, node in enumerate(graph.nodes) for name in node.outputs if name}
        self._owners = self._named()

    def groups(self) -> list[list[Work]]:
        for owner, node in enumerate(self._profiled):
            if is_product(node.operator) and not self._has_product(owner):
                self._take_product(owner)
        self._take_sums()
        found: list[list[Work]] = [[] for _ in self._profiled]
        for index, owner in sorted(self._owners.items()):
            found[owner].append(self._nodes[index])
        return found

    def _named(self) -> dict[int, int]:
        """The engine's node for each of the file's that is named once, by its own name or that of its result.

        Where several name it, it is the one that is a product as it is one, else none of them.
        """
        indices = self._makers | {node.name: index for index, node in enumerate(self._nodes) if node.name}
        claims: dict[int, set[int]] = defaultdict(set)
        for owner, profiled in enumerate(self._profiled):
            for origin in profiled.origins:
                if origin in indices:
                    claims[indices[origin]].add(owner)
        owners = {}
        for index, claimants in claims.items():
            alike = [one for one in claimants if self._is_alike(one, index)] if len(claimants) > 1 else [*claimants]
            if len(alike) == 1:
                owners[index] = alike[0]
        return owners

    def _is_alike(self, owner: int, index: int) -> bool:
        return is_product(self._profiled[owner].operator) == is_product(self._nodes[index].operator)

    def _has_product(self, owner: int) -> bool:
        return any(one == owner and is_product(self._nodes[index].operator) for index, one in self._owners.items())

    def _take_product(self, owner: int) -> None:
        """A convolution that is named after the activation behind it did the convolution too."""
        path = sorted(index for index, one in self._owners.items() if one == owner)
        while path:
            index = path.pop()
            if is_product(self._nodes[index].operator):
                return
            free = [maker for maker in self._before(index) if maker not in self._owners]
            if free:
                # The latest: a sum is fused into the product that completes it.
                self._owners[max(free)] = owner
                path.append(max(free))

    def _take_sums(self) -> None:
        """A sum that no engine node is named after was done by the product that makes its later operand."""
        for index, node in enumerate(self._nodes):
            if node.operator == "Add" and index not in self._owners:
                owner = self._owners.get(max(self._before(index), default=-1))
                if owner is not None and is_product(self._profiled[owner].operator):
                    self._owners[index] = owner

    def _before(self, index: int) -> Iterator[int]:
        return (self._makers[name] for name in self._nodes[index].inputs if name in self._makers)


def is_product(operator: str) -> bool:
    return _PRODUCT.search(operator) is not None
