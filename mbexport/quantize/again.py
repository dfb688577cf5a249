"""The model files of a narrower artifact, made once more as its manifest says."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np
import onnx

from mbexport.artifact import MODEL, OPENVINO_MODEL, read_reference
from mbexport.errors import InputError
from mbexport.folders import some_pictures
from mbexport.images import network_input, picture
from mbexport.quantize.emit import quantized
from mbexport.quantize.half import half
from mbexport.quantize.judging import BATCH
from mbexport.quantize.network import Network
from mbexport.quantize.placement import place_all_but
from mbexport.quantize.walk import settle

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from mbexport.artifact import Artifact
    from mbexport.manifest import Derivation

_SEARCHED = 10**6
"""Files of a folder that are looked through for the calibration pictures."""


def made_again(source: Artifact, derivation: Derivation, images: Path) -> dict[str, onnx.ModelProto]:
    """File name -> model. What stays in float32 is taken from the manifest, for the engines' own answers chose it.

    Args:
        source: the float32 artifact that it was made of.
        derivation: how.
        images: a folder that holds the calibration pictures, among others maybe.

    Raises:
        InputError: a calibration picture is not in the folder.
    """
    shown = network_input(_calibrating(source, derivation, images), source.manifest.input)
    if derivation.weight_levels is None:
        name = source.manifest.input.name
        pictures = [shown, read_reference(source).inputs[name]]
        return {MODEL: half(onnx.load(source.path / MODEL), {name: np.concatenate(pictures)}).model}
    batch = source.manifest.input.shape[0] or BATCH
    batches = [shown[at : at + batch] for at in range(0, len(shown), batch)]
    return {name: _int8(source, derivation, name, batches) for name in derivation.models}


def _int8(
    source: Artifact, derivation: Derivation, name: str, batches: Sequence[NDArray[np.float32]]
) -> onnx.ModelProto:
    network = Network(onnx.load(source.path / MODEL))
    islands = set(derivation.models[name].islands)
    left = {output for output, product in network.products.items() if product.name in islands}
    placement = place_all_but(network, "openvino" if name == OPENVINO_MODEL else "ort", left)
    assert derivation.weight_levels is not None
    return quantized(settle(network, placement, batches, levels=derivation.weight_levels))


def _calibrating(source: Artifact, derivation: Derivation, images: Path) -> NDArray[np.uint8]:
    """Decoded, in the order in which they calibrated."""
    found: dict[str, Path] = {}
    wanted = set(derivation.pictures_sha256)
    for path in some_pictures(images, _SEARCHED):
        if wanted <= found.keys():
            break
        if path.is_file():  # reading from a pipe would wait for ever
            with suppress(OSError):
                found[hashlib.sha256(path.read_bytes()).hexdigest()] = path
    missing = [digest for digest in derivation.pictures_sha256 if digest not in found]
    if missing:
        raise InputError(
            f"{images} lacks {len(missing)} of the {len(derivation.pictures_sha256)} pictures that calibrated it, the "
            f"first with sha256 {missing[0][:12]}..."
        )
    return np.stack([picture(found[digest], source.manifest.input) for digest in derivation.pictures_sha256])
