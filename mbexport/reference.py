"""``reference.npz``: probe inputs and Keras's answers to them, and how they are kept."""

from __future__ import annotations

import io
import math
import zipfile
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from mbexport.errors import ArtifactError
from mbexport.spec import size_text

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from mbexport.manifest import InputContract, Manifest

    Groups = dict[str, dict[str, NDArray[Any]]]

_GOLDEN, _PICTURE = "golden", "picture"


@dataclass(frozen=True)
class Golden:
    """One of the user's own pictures, (height, width, channels) uint8 as decoded and cropped, and Keras's answers.

    What goes into the network is made of it by the contract, so that a contract that is wrong shows.
    """

    picture: NDArray[np.uint8]
    keras_float64: Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Reference:
    """Probe inputs and Keras's answers, each by tensor name: float32 inputs, float32 outputs, float64 ground truth."""

    inputs: Mapping[str, NDArray[np.float32]]
    keras_float32: Mapping[str, NDArray[np.float32]]
    keras_float64: Mapping[str, NDArray[np.float64]]
    others: tuple[Reference, ...] = ()
    """The same for pictures of other sizes, where height and width are dynamic."""
    golden: tuple[Golden, ...] = ()

    @property
    def each(self) -> tuple[Reference, ...]:
        """One reference a size, this one first."""
        return (replace(self, others=(), golden=()), *self.others)


def read_npz(path: Path, manifest: Manifest) -> Reference:
    """Read a ``reference.npz`` (never unpickling anything).

    Raises:
        ArtifactError: the archive is damaged or lacks an array.
    """
    import numpy as np

    parts: dict[str, Groups] = {"": _no_arrays()}
    try:
        refuse_inflating(path)
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            for key in arrays.files:
                part, group, name = _place(key)
                parts.setdefault(part, _no_arrays())[group][name] = arrays[key]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ArtifactError(f"{path} cannot be read ({error}); build the artifact again") from error
    outputs = {output.name for output in manifest.outputs}
    for part, groups in parts.items():
        given, answers = ("picture", ("float64",)) if part.startswith(_GOLDEN) else ("input", ("float32", "float64"))
        if not groups[given] or any(set(groups[answer]) != outputs for answer in answers):
            raise ArtifactError(f"{path} does not hold the outputs that the manifest names")
    golden = [parts.pop(part) for part in sorted(parts) if part.startswith(_GOLDEN)]
    if manifest.input.is_dynamic and len(parts) == 1:
        raise ArtifactError(f"{path} holds one size of a network of dynamic size; build the artifact again")
    first, *others = (Reference(groups["input"], groups["float32"], groups["float64"]) for groups in parts.values())
    for groups in (*parts.values(), *golden):
        _refuse_unusable(path, groups)
    if any(set(groups["input"]) != {manifest.input.name} for groups in parts.values()):
        raise ArtifactError(f"{path} does not hold the input that the manifest names; build the artifact again")
    if any(set(groups["picture"]) != {_PICTURE} for groups in golden):
        raise ArtifactError(f"{path} holds a golden picture of another name; build the artifact again")
    if any(array.ndim != len(manifest.input.shape) for groups in parts.values() for array in groups["input"].values()):
        raise ArtifactError(f"{path} holds inputs that the manifest's contract does not fit; build the artifact again")
    kept = (Golden(groups["picture"][_PICTURE], groups["float64"]) for groups in golden)
    return replace(first, others=tuple(others), golden=tuple(kept))


def _refuse_unusable(path: Path, groups: Groups) -> None:
    for name, array in (item for arrays in groups.values() for item in arrays.items()):
        if array.dtype.kind not in "fiu" or array.size == 0:
            raise ArtifactError(f"{path} holds {name} without a number in it; build the artifact again")


def refuse_inflating(path: Path) -> None:
    """Arrays as mbexport writes them take as much memory as the file; others might take any.

    Raises:
        ValueError: a compressed member, or an array that says it is larger than its member.
    """
    import numpy as np

    with zipfile.ZipFile(path) as file:
        if sum(info.file_size for info in file.infolist()) > path.stat().st_size:  # members that lie in each other
            raise ValueError("its members are larger than the file")
        for info in file.infolist():
            if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
                raise ValueError(f"{info.filename} is compressed or encrypted")
            with file.open(info) as member:
                version = np.lib.format.read_magic(member)
                read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                shape, _, kind = read(member)
                if math.prod(shape) * kind.itemsize + member.tell() != info.file_size:
                    raise ValueError(f"{info.filename} is not as large as it says")


def npz_bytes(reference: Reference, contract: InputContract) -> bytes:
    """The first size's arrays as ``input/<name>`` and so on, each other size's as ``160x96/input/<name>``.

    Golden pictures stand as ``golden0/picture/picture``, with their answers likewise.
    """
    import numpy as np

    arrays = _arrays("", reference)
    for other in reference.others:
        size = contract.size_of(next(iter(other.inputs.values())))
        arrays |= _arrays(f"{size_text(size)}/", other)
    for index, kept in enumerate(reference.golden):
        arrays[f"{_GOLDEN}{index}/picture/{_PICTURE}"] = kept.picture
        arrays |= {f"{_GOLDEN}{index}/float64/{name}": array for name, array in kept.keras_float64.items()}
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def _arrays(prefix: str, reference: Reference) -> dict[str, NDArray[Any]]:
    groups: dict[str, Mapping[str, NDArray[Any]]] = {
        "input": reference.inputs,
        "float32": reference.keras_float32,
        "float64": reference.keras_float64,
    }
    return {f"{prefix}{group}/{name}": array for group, values in groups.items() for name, array in values.items()}


def _no_arrays() -> Groups:
    return {"input": {}, "picture": {}, "float32": {}, "float64": {}}


def _place(key: str) -> tuple[str, str, str]:
    """``input/x`` -> ("", input, x); ``160x96/input/x`` -> (160x96, input, x)."""
    head, _, rest = key.partition("/")
    if head in _no_arrays():
        return "", head, rest
    group, _, name = rest.partition("/")
    return head, group, name
