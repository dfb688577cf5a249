"""Builds that are taken from the cache where they were done before."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.metadata
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from mbexport import hardware
from mbexport import weights as weights_of
from mbexport.artifact import read_artifact, refuse_foreign
from mbexport.export import BuildResult
from mbexport.manifest import TOOLS
from mbexport.runtimes import engine_versions
from mbexport.spec import ExportOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from mbexport.artifact import Artifact
    from mbexport.cache import Cache
    from mbexport.profile import Hardware
    from mbexport.quantize.kinds import Narrow
    from mbexport.spec import ModelSpec

KIND, NARROW = "build", "narrow"
_FROM_CACHE = "take it from the cache"


def build(  # noqa: PLR0913 - each is an option of the command line
    cache: Cache,
    spec: ModelSpec,
    *,
    export: ExportOptions | None = None,
    weights: str = "random",
    seed: int = 0,
    out: Path = Path("artifacts"),
    labels: Path | None = None,
    golden: Path | None = None,
    progress: Callable[[str], None] | None = None,
) -> tuple[BuildResult, bool]:
    """What :func:`mbexport.pipeline.build` does, once for all that goes into it; and whether it was there.

    Raises:
        CacheError: the cache cannot be written to.
        MbexportError: whatever building raises; nothing is kept then.
    """
    started = time.perf_counter()
    form, target = export or ExportOptions(), out / spec.slug
    refuse_foreign(target)
    timings_s: dict[str, float] = {}

    def make(folder: Path) -> Mapping[str, Any]:
        from mbexport import pipeline

        with tempfile.TemporaryDirectory(prefix="mbexport-") as temporary:
            made = pipeline.build(
                spec,
                export=form,
                weights=weights,
                seed=seed,
                out=Path(temporary),
                labels=labels,
                golden=golden,
                progress=progress,
            )
            for path in made.artifact.path.iterdir():
                (folder / path.name).write_bytes(path.read_bytes())
        timings_s.update(made.timings_s)
        return {"notes": made.notes}

    inputs = inputs_of(spec, form, weights, seed, labels=labels, golden=golden)
    fetched = cache.fetch(KIND, inputs, target, make)
    if fetched.was_there:
        timings_s[_FROM_CACHE] = time.perf_counter() - started
    return BuildResult(read_artifact(target), timings_s, tuple(fetched.told["notes"])), fetched.was_there


def narrow(
    cache: Cache, exact: Artifact, images: Path, targets: Sequence[str], precision: Narrow, out: Path
) -> tuple[Artifact, bool]:
    """What :func:`mbexport.quantize.run.narrow` does, once for all that goes into it; and whether it was there.

    Raises:
        CacheError: the cache cannot be written to.
        MbexportError: whatever quantising raises; nothing is kept then.
    """
    from mbexport.quantize.run import narrow as make_narrow

    target = out / f"{exact.manifest.slug}_{precision}"
    refuse_foreign(target)

    def make(folder: Path) -> Mapping[str, Any]:
        with tempfile.TemporaryDirectory(prefix="mbexport-") as temporary:
            made = make_narrow(exact, images, targets, precision=precision, out=Path(temporary))
            for path in made.path.iterdir():
                (folder / path.name).write_bytes(path.read_bytes())
        return {}

    inputs = narrow_inputs(exact, images, targets, precision)
    fetched = cache.fetch(NARROW, inputs, target, make)
    return read_artifact(target), fetched.was_there


def narrow_inputs(exact: Artifact, images: Path, targets: Sequence[str], precision: Narrow) -> dict[str, Any]:
    """All that a narrower artifact's bytes depend on.

    Raises:
        InputError: pictures that cannot be read.
    """
    from mbexport.quantize.shown import picture_paths

    return {
        "name": f"{exact.manifest.slug}_{precision}",
        "source": exact.manifest.files,
        "pictures": [_sha256(path) for path in picture_paths(exact, images)],
        "targets": list(targets),
        "precision": precision,
        "machine": stable_machine(),
        "engines": engine_versions(targets),  # their answers settle what stays in float32
        "tools": _versions("mbexport", "onnx", "numpy", "pillow", "onnxruntime-gpu", "onnxruntime"),
        "code": source_digest(),
    }


def inputs_of(
    spec: ModelSpec,
    export: ExportOptions,
    weights: str,
    seed: int,
    *,
    labels: Path | None = None,
    golden: Path | None = None,
) -> dict[str, Any]:
    """All that an artifact's bytes depend on.

    Raises:
        InputError: labels or golden pictures that cannot be read.
        MbexportError: weights that cannot be this network's.
    """
    from mbexport.golden import pictures_of

    weights_of.check(weights, spec)
    kind, path = weights_of.split(weights)
    origin = (
        {"seed": seed} if kind == "random" else {"sha256": weights_of.digest(weights, spec), "file": Path(path).name}
    )
    return {
        "name": spec.slug,
        "spec": msgspec.to_builtins(spec),
        "export": msgspec.to_builtins(export),
        "weights": {"kind": kind, **origin},
        "labels": _labels_digest(labels),
        "golden": [_sha256(path) for path in pictures_of(golden)] if golden is not None else [],
        "tools": _versions(*TOOLS, "onnxruntime-gpu", "onnxruntime", "pillow", "scipy", "tf-keras"),
        "code": source_digest(),
    }


@functools.cache
def source_digest() -> str:
    """Of mbexport's own modules: between two releases the version stays and the code does not."""
    digest, root = hashlib.sha256(), Path(__file__).parent
    for path in sorted(path for kind in ("*.py", "_data/*") for path in root.rglob(kind) if path.is_file()):
        digest.update(f"{path.relative_to(root).as_posix()}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def stable_machine() -> Hardware:
    """This machine without its memory, which kernels count differently from boot to boot."""
    return msgspec.structs.replace(hardware.detect(), memory_bytes=0)


def _versions(*names: str) -> dict[str, str]:
    """Of the distributions that are installed."""
    found = {}
    for name in names:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def _labels_digest(labels: Path | None) -> str | None:
    if labels is None:
        return None
    from mbexport.labels_file import labels_from_file

    return hashlib.sha256(msgspec.json.encode(labels_from_file(labels))).hexdigest()


def _sha256(path: Path) -> str | None:
    """None of what cannot be read, which will be left out."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None
    except OSError:
        return None
