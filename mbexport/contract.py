"""What goes into a network and what comes out of it, in the words of the manifest."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from mbexport.convert import INPUT
from mbexport.images import CROP_SHARE
from mbexport.manifest import InputContract, OutputContract
from mbexport.spec import SIDE_MULTIPLE_PX, size_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from mbexport.manifest import OutputKind
    from mbexport.reference import Reference
    from mbexport.spec import ExportOptions


@dataclass(frozen=True)
class InputRule:
    """A picture ``p`` of 0..255 goes into the network as ``(p - mean) / scale``."""

    mean: float
    scale: float

    def apply(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        return (pictures.astype(np.float32) - np.float32(self.mean)) / np.float32(self.scale)


AS_IT_IS = InputRule(0.0, 1.0)
"""0..255 as decoded: the network rescales inside, as V3 does."""
SYMMETRIC = InputRule(127.5, 127.5)
"""-1..1, as V2 expects."""


def input_contract(
    rule: InputRule, size: tuple[int, int], channels: int, export: ExportOptions, *, dynamic: bool = False
) -> InputContract:
    """The contract of the exported file.

    Args:
        rule: what the network itself expects; where the file is to do that inside, pictures go in as they are.
        size: height and width in pixels.
        channels: 1 or 3.
        export: the form of the file.
        dynamic: whether height and width are left open; ``size`` is then where it is measured.
    """
    outside = AS_IT_IS if export.rescales_inside else rule
    picture = [None, None] if dynamic else [*size]
    resize_px = round(min(size) / CROP_SHARE)
    return InputContract(
        name=INPUT,
        shape=[export.batch, *picture, channels] if export.layout == "nhwc" else [export.batch, channels, *picture],
        layout=export.layout,
        type=export.input_type,
        range=((0 - outside.mean) / outside.scale, (255 - outside.mean) / outside.scale),
        mean=outside.mean,
        scale=outside.scale,
        colour_order="RGB" if channels == 3 else "grey",
        resize="to any size, bilinear" if dynamic else _resize(size, resize_px),
        resize_px=None if dynamic else resize_px,
        crop=f"centre, each side to a multiple of {SIDE_MULTIPLE_PX}" if dynamic else f"centre {size_text(size)}",
        multiple_of=SIDE_MULTIPLE_PX if dynamic else msgspec.UNSET,
    )


def _resize(size: tuple[int, int], resize_px: int) -> str:
    if size[0] == size[1]:
        return f"shorter side to {resize_px}, bilinear"
    covered = (round(side * resize_px / min(size)) for side in size)
    return f"to cover {size_text((next(covered), next(covered)))} (height x width), bilinear"


def output_contracts(
    reference: Reference, kinds: Mapping[str, OutputKind], export: ExportOptions
) -> list[OutputContract]:
    """Each output, its sides None where they follow the input's."""
    contracts = []
    for name, kind in kinds.items():
        shapes = [at_size.keras_float64[name].shape[1:] for at_size in reference.each]
        common = [sides[0] if len(set(sides)) == 1 else None for sides in zip(*shapes, strict=True)]
        contracts.append(OutputContract(name=name, shape=[export.batch, *common], kind=kind))
    return contracts


def in_form(reference: Reference, contract: InputContract, rule: InputRule) -> Reference:
    """A channels-last reference in the form of the exported file: pictures as it takes them, its layout."""

    def channels_first(array: NDArray[Any]) -> NDArray[Any]:
        is_map = contract.layout == "nchw" and array.ndim == 4
        return np.ascontiguousarray(array.transpose(0, 3, 1, 2)) if is_map else array

    def taken(array: NDArray[np.float32]) -> NDArray[Any]:
        if rule == InputRule(contract.mean, contract.scale) and contract.type == "float32":
            return array
        decoded: NDArray[Any] = np.rint(array * np.float32(rule.scale) + np.float32(rule.mean)).astype(contract.type)
        return decoded

    return replace(
        reference,
        inputs={name: channels_first(taken(array)) for name, array in reference.inputs.items()},
        keras_float32={name: channels_first(array) for name, array in reference.keras_float32.items()},
        keras_float64={name: channels_first(array) for name, array in reference.keras_float64.items()},
        others=tuple(in_form(other, contract, rule) for other in reference.others),
    )
