"""Why a model and its input contract do not fit together: the usual mistakes, tried one by one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from mbexport.errors import ArtifactError, EngineError
from mbexport.images import network_input
from mbexport.pictures import REFERENCE_PICTURES, REFERENCE_SEED, pictures, reference_pictures

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from mbexport.artifact import Artifact
    from mbexport.compare import Comparison
    from mbexport.manifest import InputContract
    from mbexport.reference import Reference

_FOUND_DB = 40.0
"""What a mended input must reach: rounding pictures anew leaves more, another mistake leaves 20 dB at most."""
_SCALINGS = {(0.0, 1.0): "0..255", (0.0, 255.0): "0..1", (127.5, 127.5): "-1..1"}


def contract_fault(contract: InputContract, reference: Reference) -> str | None:
    """Where the contract is not the one that the stored inputs were made by, what is wrong with it; else None.

    The stored inputs are pictures made from a fixed seed. Made again by the contract as it stands, they must come out
    the same.
    """
    stored = next(iter(reference.inputs.values()))
    if _is_made_by(contract, stored):
        return _range_fault(contract)
    for wrong, other in _other_contracts(contract):
        if _is_made_by(other, stored):
            return f"the input contract is wrong: {wrong}"
    return _range_fault(contract)  # other pictures, of which nothing can be said


def refuse_wrong_contract(artifact: Artifact) -> None:
    """For who feeds pictures by the contract.

    Raises:
        ArtifactError: it is not the one that the model was made for.
    """
    fault = metadata_fault(artifact) or _range_fault(artifact.manifest.input)
    if fault is not None:
        raise ArtifactError(f"{artifact.path}: {fault}; build the artifact again")


def explain(run: Callable[[NDArray[Any]], Comparison], inputs: NDArray[Any], contract: InputContract) -> str | None:
    """What change of its inputs makes a model right that is wrong as it stands, in words; None where none does.

    Args:
        run: feeds one array to the model and compares its answers with the truth.
        inputs: what the contract makes of pictures.
        contract: the contract.
    """
    for cause, changed in _changed_inputs(inputs, contract):
        try:
            found = run(changed)
        except EngineError:
            continue  # not even the shape fits
        if found.passed or (found.sqnr_db is not None and found.sqnr_db > _FOUND_DB):
            return cause
    return None


def _range_fault(contract: InputContract) -> str | None:
    made = tuple((end - contract.mean) / contract.scale for end in (0, 255))
    if np.allclose(made, contract.range, rtol=1e-4, atol=1e-4):
        return None
    low, high = contract.range
    return f"the input contract is wrong: it says range {low:g}..{high:g}, its mean and scale make {_range(contract)}"


def _is_made_by(contract: InputContract, stored: NDArray[Any]) -> bool:
    rank = 4
    if stored.ndim != rank or not len(stored):
        return False
    channels = stored.shape[-1 if contract.layout == "nhwc" else 1]
    if channels not in {1, 3}:
        return False
    size = contract.size_of(stored)
    older = pictures(REFERENCE_PICTURES, *size, REFERENCE_SEED)  # before plain areas stood on two of them
    for shown in (reference_pictures(*size, len(stored)), older):
        made = network_input(shown[..., :channels], contract)
        allowed = 1e-3 * float(np.ptp(made) or 1)
        alike = (made.dtype, made.shape) == (stored.dtype, stored.shape)
        if alike and np.allclose(made, stored, rtol=1e-4, atol=allowed):
            return True
    return False


def _other_contracts(contract: InputContract) -> Iterator[tuple[str, InputContract]]:
    """The contract with one thing put right, and what was wrong with it."""
    orders = {"RGB": "BGR", "BGR": "RGB"}
    if contract.colour_order in orders:
        right = orders[contract.colour_order]
        wrong = f"it says that colours come as {contract.colour_order}, the network takes {right}"
        yield wrong, _with(contract, colour_order=right)
    layouts = {"nhwc": "nchw", "nchw": "nhwc"}
    right = layouts[contract.layout]
    yield f"it says that pictures come as {contract.layout}, the network takes {right}", _with(contract, layout=right)
    for (mean, scale), named in _SCALINGS.items():
        wrong = f"it brings pictures to {_range(contract)}, the network takes {named}{_effect(contract, scale)}"
        yield wrong, _with(contract, mean=mean, scale=scale)
    kinds = {"float32": "uint8", "uint8": "float32"}
    right = kinds[contract.type]
    yield f"it says that pictures come as {contract.type}, the network takes {right}", _with(contract, type=right)


def _effect(contract: InputContract, scale: object) -> str:
    if not isinstance(scale, int | float):  # the metadata of a stranger
        return ""
    if contract.scale < scale:
        return ", so the scaling would be missing"
    return ", so they would be scaled twice" if contract.scale > scale else ""


def _with(contract: InputContract, **changes: Any) -> InputContract:
    return msgspec.structs.replace(contract, **changes)


def _range(contract: InputContract) -> str:
    low, high = ((end - contract.mean) / contract.scale for end in (0, 255))
    return f"{low:g}..{high:g}"


def _changed_inputs(inputs: NDArray[Any], contract: InputContract) -> Iterator[tuple[str, NDArray[Any]]]:
    nhwc = contract.layout == "nhwc"
    axis = -1 if nhwc else 1
    other = "nchw" if nhwc else "nhwc"
    moved = inputs.transpose(0, 3, 1, 2) if nhwc else inputs.transpose(0, 2, 3, 1)
    yield f"it takes pictures as {other}, its contract says {contract.layout}", np.ascontiguousarray(moved)
    if inputs.shape[axis] == 3:
        swapped = np.ascontiguousarray(np.flip(inputs, axis))
        order = "BGR" if contract.colour_order == "RGB" else "RGB"
        yield f"it takes colours as {order}, its contract says {contract.colour_order}", swapped
    if contract.type != "float32":
        return
    decoded = inputs * np.float32(contract.scale) + np.float32(contract.mean)
    for (mean, scale), named in _SCALINGS.items():
        if (mean, scale) != (contract.mean, contract.scale):
            scaled = (decoded - np.float32(mean)) / np.float32(scale)
            yield f"it takes pictures of {named}, its contract brings them to {_range(contract)}", scaled
    again = (inputs - np.float32(127.5)) / np.float32(127.5)
    yield "a scaling to -1..1 is missing in front of it: pictures scaled once more agree", again
    undone = decoded * np.float32(127.5) + np.float32(127.5)
    yield "a scaling to -1..1 stands in front of it twice: pictures that undo one agree", undone


def metadata_fault(artifact: Artifact) -> str | None:
    """Where a model's own metadata describe another contract than the manifest, the first field that differs.

    Raises:
        ArtifactError: a model file that is no ONNX.
    """
    import onnx
    from google.protobuf.message import DecodeError

    contract = msgspec.json.decode(msgspec.json.encode(artifact.manifest.input))
    for name in sorted(set(artifact.manifest.models.values())):
        try:
            metadata = {entry.key: entry.value for entry in onnx.load(artifact.path / name).metadata_props}
            stated = msgspec.json.decode(metadata.get("mbexport.input", "{}"), type=dict[str, Any])
        except (DecodeError, msgspec.DecodeError) as error:
            raise ArtifactError(f"{artifact.path / name} cannot be read ({error}); build the artifact again") from error
        for field in contract:
            if field in stated and stated[field] != contract[field]:
                return (
                    f"the input contract is wrong: manifest.json says {field} {contract[field]}, "
                    f"{name} was built for {stated[field]}{_effect(artifact.manifest.input, stated.get('scale'))}"
                )
    return None
