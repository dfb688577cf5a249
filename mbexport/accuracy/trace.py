"""``trace.npz``: what every tensor of the finished graph held on the first four reference pictures, in samples.

The graph as a whole was proven against Keras when it was built, so its inner tensors are the truth that ``--explain``
holds a runtime's to, on a machine that has neither Keras nor TensorFlow.
"""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mbexport.errors import ArtifactError
from mbexport.reference import refuse_inflating

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    Arrays = Mapping[str, NDArray[Any]]

_LEAST_PLACES, _SAMPLES = 4, 256
_GOLDEN_RATIO = (5**0.5 - 1) / 2
_SAMPLE, _SHAPE = "sample/", "shape/"


@dataclass(frozen=True)
class Sample:
    """Of a tensor of ``shape``, the numbers at :func:`places` as (pictures, channels, places), float32."""

    shape: tuple[int, ...]
    values: NDArray[np.float32]


Trace = dict[str, Sample]
"""By tensor name."""


def sampled(array: NDArray[Any]) -> NDArray[Any]:
    """(pictures, channels, places) of a tensor with the batch first and the channels second.

    Every channel is looked at in the same places, so that swapped channels can be told.
    """
    flat = array.reshape(len(array), array.shape[1] if array.ndim > 1 else 1, -1)
    return flat[:, :, places(flat.shape[1], flat.shape[2])]


def places(channels: int, size: int) -> NDArray[np.int64]:
    """Where each channel's ``size`` numbers are looked at: multiples of the golden ratio, which fall on no grid."""
    count = max(_LEAST_PLACES, _SAMPLES // max(channels, 1))
    if count >= size:
        return np.arange(size)
    return np.unique((np.arange(count) * _GOLDEN_RATIO % 1 * size).astype(np.int64))


def trace_of(arrays: Arrays) -> Trace:
    """The samples of every float32 tensor among ``arrays``, which are whole."""
    return {
        name: Sample(array.shape, sampled(array).astype(np.float32))
        for name, array in arrays.items()
        if array.dtype == np.float32 and array.ndim and array.size
    }


def npz_bytes(trace: Trace) -> bytes:
    """The same as the bytes of ``trace.npz``."""
    arrays: dict[str, NDArray[Any]] = {}
    for name, sample in trace.items():
        arrays[f"{_SAMPLE}{name}"] = sample.values
        arrays[f"{_SHAPE}{name}"] = np.array(sample.shape, np.int64)
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def read_npz(path: Path) -> Trace:
    """Read a ``trace.npz`` (never unpickling anything).

    Raises:
        ArtifactError: the archive is damaged.
    """
    try:
        refuse_inflating(path)
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            names = [key.removeprefix(_SAMPLE) for key in arrays.files if key.startswith(_SAMPLE)]
            return {
                name: Sample(tuple(int(side) for side in arrays[f"{_SHAPE}{name}"]), arrays[f"{_SAMPLE}{name}"])
                for name in names
            }
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ArtifactError(f"{path} cannot be read ({error}); build the artifact again") from error
