"""Which networks can be converted: one picture in, channels last."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mbexport.errors import InputError
from mbexport.spec import size_text

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

CHANNELS = (1, 3)


@dataclass(frozen=True)
class TensorSpec:
    """A tensor that goes into a network or comes out of it."""

    name: str
    shape: tuple[int | None, ...] | None
    """The batch first; None where even the rank is open."""
    dtype: str

    def __str__(self) -> str:
        sides = (
            "any shape" if self.shape is None else "x".join("?" if side is None else str(side) for side in self.shape)
        )
        return f"{self.name} ({sides} {self.dtype})"


def picture_shape(path: Path, inputs: Sequence[TensorSpec], size: tuple[int, int] | None) -> tuple[int, int, int]:
    """Height and width in pixels, and channels.

    Raises:
        InputError: the network takes something else, or leaves its size open while ``size`` is None.
    """
    if not inputs:
        raise InputError(
            f"{path} does not say what it takes, as models made by subclassing do not; "
            "save it with model.export(FOLDER), and convert FOLDER"
        )
    (picture,) = inputs if len(inputs) == 1 else (None,)
    if picture is None or picture.shape is None or len(picture.shape) != 4 or picture.dtype != "float32":
        raise InputError(
            f"{path} takes {', '.join(map(str, inputs))}; only networks that take one float32 picture, "
            "batch x height x width x channels, can be converted"
        )
    _, height, width, channels = picture.shape
    if channels not in CHANNELS:
        first = picture.shape[1] in CHANNELS
        raise InputError(
            f"{path} takes {picture}: "
            + (
                "channels first; rebuild it with data_format='channels_last'"
                if first
                else "a picture must have 1 or 3 channels, as the last dimension"
            )
        )
    if size is None:
        if height is None or width is None:
            raise InputError(f"{path} takes pictures of any size ({picture}); fix one with --resolution, such as 224")
        return height, width, channels
    height, width = height or size[0], width or size[1]
    if size != (height, width):
        raise InputError(f"{path} takes pictures of {size_text((height, width))}, not {size_text(size)}")
    return height, width, channels


def check_outputs(path: Path, outputs: Sequence[TensorSpec]) -> None:
    """Raise where an output is not one floating-point array for each picture."""
    for output in outputs:
        if output.dtype != "float32" or output.shape == ():
            raise InputError(f"{path}: output {output} must hold float32 numbers for each picture; remove it")
