"""Pictures that travel as files, each with what Keras answers to it."""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING

import numpy as np

from mbexport.artifact import read_labels, read_reference
from mbexport.bundle.manifest import GOLDEN, ExpectedClass, GoldenPicture
from mbexport.errors import ArtifactError
from mbexport.images import CROP_SHARE, picture_size
from mbexport.thresholds import PICTURE_MAX_PIXELS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from mbexport.artifact import Artifact
    from mbexport.manifest import InputContract

_MOST, _TOP = 3, 5
_ROUNDING = 1e-3
"""What float32 leaves of a pixel's 0..255 that was scaled and scaled back, at most."""


def golden_members(artifact: Artifact) -> tuple[list[GoldenPicture], dict[str, bytes]]:
    """The user's own golden pictures, else the first synthetic ones, and the files that show them.

    A file is a BMP, whose bytes depend on no library's compression, with an even margin around the picture: what the
    contract's resizing and cropping make of it is the picture itself.

    Raises:
        ArtifactError: the stored reference cannot be read.
    """
    outputs, labels = artifact.manifest.outputs, read_labels(artifact)
    output = next((one for one in outputs if one.kind != "features"), outputs[0])
    entries, members = [], {}
    for number, (shown, answer) in enumerate(_shown(artifact, output.name), start=1):
        name = f"{GOLDEN}/{number}.bmp"
        ranked = [] if output.kind == "features" else np.argsort(-answer, kind="stable")[:_TOP].tolist()
        top = [
            ExpectedClass(index=at, name=labels[at].name if labels else None, value=float(answer[at])) for at in ranked
        ]
        entries.append(GoldenPicture(picture=name, top=top))
        members[name] = bmp(shown, artifact.manifest.input)
    return entries, members


def bmp(shown: NDArray[np.uint8], contract: InputContract) -> bytes:
    """A file that the contract's resizing and cropping make ``shown`` of, (height, width, channels)."""
    from PIL import Image

    wide = _with_margin(shown, contract)
    buffer = io.BytesIO()
    Image.fromarray(wide[..., 0] if wide.shape[-1] == 1 else wide).save(buffer, "BMP")
    return buffer.getvalue()


def _shown(artifact: Artifact, output: str) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.float64]]]:
    """(height, width, channels) and the answer, at most three; none of a network that takes no pictures."""
    reference, contract = read_reference(artifact), artifact.manifest.input
    for kept in reference.golden[:_MOST]:
        yield kept.picture, kept.keras_float64[output][0]
    inputs = reference.inputs[contract.name][:_MOST]
    channels_last = inputs if contract.layout == "nhwc" else inputs.transpose(0, 2, 3, 1)
    values = channels_last.astype(np.float64) * contract.scale + contract.mean
    pixels = np.rint(values).clip(0, 255).astype(np.uint8)
    is_picture = channels_last.shape[-1] in {1, 3} and np.abs(values - pixels).max() < _ROUNDING
    if is_picture and not reference.golden:
        red_first = pixels[..., ::-1] if contract.colour_order == "BGR" else pixels
        yield from zip(red_first, reference.keras_float64[output], strict=False)


def _with_margin(shown: NDArray[np.uint8], contract: InputContract) -> NDArray[np.uint8]:
    """The smallest picture that is resized by a factor of 1 and has ``shown`` at its centre; the edge goes on."""
    height, width = shown.shape[:2]
    shorter_px = contract.resize_px or round(min(picture_size(contract)) / CROP_SHARE)
    whole = [math.ceil(shorter_px * side / min(height, width)) for side in (height, width)]
    if shorter_px < min(height, width) or math.prod(whole) > PICTURE_MAX_PIXELS:
        raise ArtifactError(f"the input contract's resize_px, {shorter_px}, does not fit pictures of {height}x{width}")
    above, beside = whole[0] - height, whole[1] - width
    margins = [(above // 2, above - above // 2), (beside // 2, beside - beside // 2), (0, 0)]
    return np.pad(shown, margins, mode="edge")
