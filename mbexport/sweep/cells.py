"""The cells of a grid: which networks, in which form and precision."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import msgspec

from mbexport.errors import InputError
from mbexport.spec import ExportOptions, ModelSpec, Precision

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class Cell(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One artifact to be."""

    spec: ModelSpec
    export: ExportOptions = ExportOptions()
    weights: str = "random"
    seed: int = 0
    precision: Precision = "f32"

    @property
    def name(self) -> str:
        """The artifact's folder."""
        return self.spec.slug if self.precision == "f32" else f"{self.spec.slug}_{self.precision}"

    @property
    def exact(self) -> Cell:
        """The float32 cell that it is made of."""
        return msgspec.structs.replace(self, precision="f32")


def grid(
    specs: Iterable[ModelSpec], export: ExportOptions, weights: str, seed: int, precisions: Sequence[Precision]
) -> list[Cell]:
    """Every network in every precision, float32 first.

    Raises:
        InputError: two cells would be one folder.
    """
    cells = [
        Cell(spec=spec, export=export, weights=weights, seed=seed, precision=precision)
        for spec, precision in itertools.product(specs, precisions)
    ]
    refuse_twins(cells)
    return sorted(cells, key=lambda cell: cell.precision != "f32")


def refuse_twins(cells: Iterable[Cell]) -> None:
    """Raise :class:`InputError` where two cells would be one folder."""
    seen: set[str] = set()
    for cell in cells:
        if cell.name in seen:
            raise InputError(f"two cells are called {cell.name}; each needs a folder of its own")
        seen.add(cell.name)
