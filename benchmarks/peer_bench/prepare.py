"""Make one peer's file of one network: ``python -m peer_bench.prepare WORK CELL STEP``, a process for each.

TensorFlow and torch stay out of each other's way and out of the measuring; what a package does to its process when it
fails ends that process alone. ``step.json`` is written last, so a folder that holds one is complete.
"""

from __future__ import annotations

import importlib.metadata
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from mbexport import serde
from peer_bench import keras_files, simplifiers
from peer_bench.cells import CANDIDATES, cell_of
from peer_bench.describe import describe
from peer_bench.records import StepFiles
from peer_bench.timm_file import timm_onnx

if TYPE_CHECKING:
    from peer_bench.cells import Cell

STEP_FILE = "step.json"
_KERAS = ("tensorflow", "keras")
PACKAGES: dict[str, tuple[str, ...]] = {
    "keras_onnx": (*_KERAS, "tf2onnx", "onnx"),
    "keras_fresh": (*_KERAS, "tf2onnx", "onnx"),
    "mbexport": (*_KERAS, "mbexport", "tf2onnx", "onnx", "onnx-ir", "onnxscript"),
    "onnxslim": ("onnxslim", "onnx"),
    "onnxsim": ("onnxsim", "onnx"),
    "timm": ("torch", "torchvision", "timm", "onnxscript", "onnx-ir"),
    "saved_model": (*_KERAS, "openvino"),
    "keras_openvino": (*_KERAS, "openvino"),
    "litert": (*_KERAS, "ai-edge-litert"),
}
"""Step -> the packages that it needs. ``keras_onnx`` comes first: others need its files."""


def prepare(work: Path, slug: str, step: str) -> StepFiles | str:
    """The step's files, made in a fresh process unless they are there already; or why there are none.

    mbexport's own file is always made again: it is what changes.
    """
    versions = {name: version_of(name) for name in PACKAGES[step]}
    absent = [name for name, version in versions.items() if version is None]
    if absent:
        return f"{', '.join(absent)} not installed"
    done = _finished(work / slug / step)
    if done is not None and step != "mbexport" and done.versions == versions:
        return done
    command = [sys.executable, "-m", "peer_bench.prepare", str(work), slug, step]
    process = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False)
    made = None if process.returncode else _finished(work / slug / step)
    return made or last_line(process.stderr) or f"ended with exit code {process.returncode}"


def version_of(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def last_line(text: str) -> str:
    """Where a traceback says what happened."""
    return text.strip().rpartition("\n")[2].strip()


def make(work: Path, cell: Cell, step: str) -> None:
    folder = work / cell.slug / step
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    keras = work / cell.slug / "keras_onnx"
    paths = _paths(cell, step, folder, keras)
    own_feeds = folder / keras_files.FEEDS
    feeds = own_feeds if own_feeds.exists() else keras / keras_files.FEEDS
    files = {
        engine: describe(work, path, feeds, "logits" if step == "timm" else "probabilities")
        for engine, path in paths.items()
    }
    versions = {name: importlib.metadata.version(name) for name in PACKAGES[step]}
    serde.write_atomic(folder / STEP_FILE, serde.json_bytes(StepFiles(files=files, versions=versions)))


def _finished(folder: Path) -> StepFiles | None:
    file = folder / STEP_FILE
    return msgspec.json.decode(file.read_bytes(), type=StepFiles) if file.is_file() else None


def _paths(cell: Cell, step: str, folder: Path, keras: Path) -> dict[str, Path]:
    """Engine -> model file. ``keras`` is the folder of the step ``keras_onnx``."""
    engines = [candidate.engine for candidate in CANDIDATES if candidate.step == step]
    if step == "mbexport":
        artifact = keras_files.mbexport_artifact(cell.spec, folder)
        return {engine: artifact.model_path(f"{engine}:cpu") for engine in engines}
    makers = {
        "keras_onnx": lambda: keras_files.keras_onnx(cell.spec, folder),
        "keras_fresh": lambda: keras_files.keras_onnx(cell.spec, folder, zero_bias=True),
        "onnxslim": lambda: simplifiers.slim(keras / keras_files.MODEL, folder),
        "onnxsim": lambda: simplifiers.simplify(keras / keras_files.MODEL, folder),
        "timm": lambda: timm_onnx(cell, keras, folder),
        "saved_model": lambda: keras_files.saved_model_openvino(cell.spec, folder),
        "keras_openvino": lambda: keras_files.keras_openvino(cell.spec, folder),
        "litert": lambda: keras_files.tflite(cell.spec, folder),
    }
    return dict.fromkeys(engines, makers[step]())


if __name__ == "__main__":
    make(Path(sys.argv[1]), cell_of(sys.argv[2]), sys.argv[3])
