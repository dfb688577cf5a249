"""Load every artifact in a folder with the onnxruntime and openvino that are here, and compare with Keras's answers.

    python benchmarks/grid.py --keep artifacts && python benchmarks/load_everywhere.py artifacts

It imports nothing of mbexport, so that it runs beside any release: the oldest that are promised are onnxruntime 1.20.1
and openvino 2024.6. A line on stderr, such as ONNX Runtime's warning of a dead initializer, counts as a failure.
"""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import numpy as np
import onnxruntime  # noqa: TID253 - whatever release is here, without mbexport
import openvino  # noqa: TID253

LIMIT = 1e-3
"""Largest error over largest answer. Older releases sum in other orders; a wrong graph is off by far more."""


@contextlib.contextmanager
def said() -> Iterator[list[str]]:
    """What is written to stderr, by C++ too, while the block runs."""
    lines: list[str] = []
    kept = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield lines
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            file.seek(0)
            lines += file.read().decode(errors="replace").splitlines()


def errors(folder: Path) -> dict[str, float]:
    """Engine -> largest error over largest answer, on the first size of the reference."""
    found = {}
    with np.load(folder / "reference.npz") as arrays:
        inputs = {key.split("/", 1)[1]: arrays[key] for key in arrays.files if key.startswith("input/")}
        truth = {key.split("/", 1)[1]: arrays[key] for key in arrays.files if key.startswith("float64/")}
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    answers = dict(zip(names, session.run(names, inputs), strict=True))
    found["onnxruntime"] = worst(answers, truth)
    core = openvino.Core()
    model = core.read_model(str(folder / "model.onnx"))
    model.reshape({name: list(array.shape) for name, array in inputs.items()})
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    results = compiled(inputs)
    found["openvino"] = worst({name: results[compiled.output(name)] for name in truth}, truth)
    return found


def worst(answers: dict[str, np.ndarray], truth: dict[str, np.ndarray]) -> float:
    return max(float(abs(answers[name] - truth[name]).max() / abs(truth[name]).max()) for name in truth)


def main() -> None:
    folders = sorted(path.parent for path in Path(sys.argv[1]).rglob("manifest.json"))
    failed = 0
    for folder in folders:
        with said() as lines:
            found = errors(folder)
        wrong = [f"{engine} is off by {error:.1e}" for engine, error in found.items() if not error < LIMIT]
        if wrong or lines:
            failed += 1
            print(f"{folder}: {'; '.join([*wrong, *lines])}")
    print(f"onnxruntime {onnxruntime.__version__}, openvino {openvino.__version__}")
    print(f"{len(folders) - failed} of {len(folders)} artifacts load without a word and answer as Keras does")
    sys.exit(1 if failed or not folders else 0)


if __name__ == "__main__":
    main()
