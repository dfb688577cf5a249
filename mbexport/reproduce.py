"""Build an artifact a second time, in circumstances as different as one machine offers, and compare the bytes.

The second build is ``python -m mbexport.reproduce``.
"""

from __future__ import annotations

import itertools
import os
import platform
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from mbexport import child
from mbexport.artifact import LABELS
from mbexport.spec import ExportOptions, ModelSpec
from mbexport.weights import absolute

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import onnx

    from mbexport.artifact import Artifact

_OLDER_X86 = {
    "OPENBLAS_CORETYPE": "Nehalem",
    "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX512F,-AVX2,-FMA",
}
"""OpenBLAS and the C library choose their kernels as on an x86 CPU from before AVX."""


class Reproduction(msgspec.Struct, frozen=True, kw_only=True):
    """What came of the second build. ``sha256`` is that of its model.onnx."""

    sha256: str
    passed: bool
    difference: str | None = None
    """The first thing in the two files that differs."""


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What the second process is to build, and where."""

    spec: ModelSpec
    export: ExportOptions
    weights: str
    seed: int
    labels: str | None
    out: str


class Delivery(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Where the second artifact lies."""

    path: str
    sha256: str


def rebuild(artifact: Artifact, weights: str = "random") -> Reproduction:
    """Build ``artifact`` again in a fresh process, into a temporary folder, and compare its model files.

    Args:
        artifact: as just built.
        weights: what it was built with, as for ``build``.

    Raises:
        MbexportError: the second build failed.
        ProcessError: its process died.
    """
    manifest = artifact.manifest
    assert manifest.spec is not None, "only what `build` made can be built again"
    with tempfile.TemporaryDirectory(prefix="mbexport-") as folder:
        order = Order(
            spec=manifest.spec,
            export=manifest.export,
            weights=absolute(weights),
            seed=manifest.weights.seed or 0,
            labels=str((artifact.path / LABELS).absolute()) if LABELS in manifest.files else None,
            out=folder,
        )
        again = child.ask(
            child.python_module("mbexport.reproduce"),
            order,
            Delivery,
            what="the process that built it again",
            environment=other_circumstances(os.environ),
        )
        # At opset 13 there are two.
        for name in sorted(set(manifest.models.values())):
            ours, other = artifact.path / name, Path(again.path) / name
            if ours.read_bytes() != other.read_bytes():
                difference = first_difference(ours, other)
                return Reproduction(sha256=again.sha256, passed=False, difference=difference)
    return Reproduction(sha256=again.sha256, passed=True)


def other_circumstances(environment: Mapping[str, str]) -> dict[str, str]:
    """Variables under which every library that takes part in a build works otherwise than under ``environment``.

    Another order of sets, another number of threads, TensorFlow with oneDNN where it was without or the other way
    round, and the kernels of an older CPU in NumPy, its BLAS and the C library.
    """
    import numpy as np

    threads = "2" if environment.get("TF_NUM_INTRAOP_THREADS", str(os.cpu_count())) == "1" else "1"
    simd = np.show_config(mode="dicts")["SIMD Extensions"]
    return {
        "PYTHONHASHSEED": "2" if environment.get("PYTHONHASHSEED") == "1" else "1",
        "TF_NUM_INTRAOP_THREADS": threads,
        "TF_NUM_INTEROP_THREADS": threads,
        "OMP_NUM_THREADS": threads,
        "TF_ENABLE_ONEDNN_OPTS": "1" if environment.get("TF_ENABLE_ONEDNN_OPTS") == "0" else "0",
        "NPY_DISABLE_CPU_FEATURES": " ".join(simd.get("found", [])),
        **(_OLDER_X86 if platform.machine() in {"x86_64", "AMD64"} else {}),
    }


def first_difference(ours: Path, again: Path) -> str:
    """The first part of two ONNX files that differs, in words."""
    import onnx

    parts = (_parts(onnx.load(path)) for path in (ours, again))
    nothing = "nothing", None
    for (name, one), (other_name, other) in itertools.zip_longest(*parts, fillvalue=nothing):
        if name != other_name:
            return f"first difference: {name} here, {other_name} again"
        if one != other:
            return f"first difference: {name}{_numbers(one, other)}"
    return "the same parts, written differently"


def _parts(model: onnx.ModelProto) -> Iterator[tuple[str, object]]:
    """Everything that a file holds, the telling things first."""
    graph = model.graph
    yield from ((f"node {node.name}", node) for node in graph.node)
    yield from ((f"initializer {tensor.name}", tensor) for tensor in graph.initializer)
    yield from ((f"input {value.name}", value) for value in graph.input)
    yield from ((f"output {value.name}", value) for value in graph.output)
    yield from ((f"metadata {entry.key}", entry.value) for entry in model.metadata_props)
    yield from ((f"the shape of {value.name}", value) for value in graph.value_info)
    yield from ((f"opset of domain {entry.domain!r}", entry.version) for entry in model.opset_import)
    yield from ((name, getattr(model, name)) for name in ("ir_version", "producer_name", "producer_version"))


def _numbers(one: object, other: object) -> str:
    """How far two initializers stand apart."""
    import numpy as np
    import onnx

    if not isinstance(one, onnx.TensorProto) or not isinstance(other, onnx.TensorProto):
        return ""
    first, second = (onnx.numpy_helper.to_array(tensor) for tensor in (one, other))
    if first.shape != second.shape or first.dtype != second.dtype:
        return f": {first.dtype}{list(first.shape)} here, {second.dtype}{list(second.shape)} again"
    error = np.abs(first.astype(np.float64) - second)
    return f": {np.count_nonzero(error)} of {error.size} numbers, by {error.max(initial=0.0):.2g} at most"


def _build(order: Order) -> Delivery:
    from mbexport.pipeline import build

    artifact = build(
        order.spec,
        export=order.export,
        weights=order.weights,
        seed=order.seed,
        labels=None if order.labels is None else Path(order.labels),
        out=Path(order.out),
    ).artifact
    return Delivery(path=str(artifact.path), sha256=artifact.sha256)


if __name__ == "__main__":
    sys.exit(child.answer(Order, _build))
