"""A user's own network as something to export."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from mbexport.contract import InputRule
from mbexport.errors import InputError
from mbexport.subject import About, Subject

if TYPE_CHECKING:
    from pathlib import Path


def slug_of(model: Path, name: str | None) -> str:
    """The name of the artifact's folder: the one given, else the file's own without its ending.

    Raises:
        InputError: a name that is no plain folder name.
    """
    if name is None:
        stem = model.resolve().name.removesuffix(".keras").removesuffix(".h5")
        return re.sub(r"[^\w.-]+", "_", stem, flags=re.ASCII).strip("._-") or "model"
    if not re.fullmatch(r"\w[\w.-]*", name, flags=re.ASCII):
        raise InputError(f"--name must be letters, digits, '.', '_' and '-', and begin with a letter, not {name!r}")
    return name


def check_request(model: Path, input_range: tuple[float, float] | None) -> None:
    """What can be refused before TensorFlow is imported.

    Raises:
        InputError: a range that is none, or a file that is no model.
    """
    from mbexport.user_model import check

    if input_range is not None:
        rule_of_range(input_range)
    check(model)


def rule_of_range(input_range: tuple[float, float]) -> InputRule:
    """The rule that brings 0..255 to the range, such as (-1, 1).

    Raises:
        InputError: its second number is not above its first.
    """
    low, high = input_range
    if not (low < high and math.isfinite(scale := 255 / (high - low)) and scale > 0):
        raise InputError(f"--input-range must be two finite numbers that rise, as -1,1 do, not {low:g},{high:g}")
    return InputRule(0.0 - low * scale, scale)  # -low would be -0.0 for 0, and other bytes


def subject_of(
    model: Path,
    slug: str,
    *,
    size: tuple[int, int] | None,
    input_range: tuple[float, float] | None,
    allow_unsafe: bool,
) -> Subject:
    """Load the file; see :func:`mbexport.pipeline.convert`."""
    from mbexport.user_model import load

    loaded = load(model, allow_unsafe=allow_unsafe, size=size)
    height, width, _ = loaded.network.picture_shape
    assert height is not None
    assert width is not None
    about = About(
        slug=slug,
        origin=loaded.origin,
        sizes=((height, width),),
        rule=None if input_range is None else rule_of_range(input_range),
        notes=tuple(loaded.notes),
    )
    return Subject(about, loaded.network)
