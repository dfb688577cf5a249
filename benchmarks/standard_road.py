"""MobileNetV3 Large through tf2onnx as it comes, against mbexport's file, on each CPU runtime.

    python benchmarks/standard_road.py [--rounds 8]

One thread, batch 1, float32 pinned. Blocks of 60 runs take turns, so that a change of the machine's speed meets both;
the ratio of the block medians is printed for every round, and their median at the end.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import onnx

from mbexport.pictures import pictures
from mbexport.pipeline import build
from mbexport.runtimes import SessionOptions, load_engine
from mbexport.spec import ModelSpec

if TYPE_CHECKING:
    from collections.abc import Callable

BLOCK_RUNS = 60


def standard_export(path: Path) -> None:
    import tensorflow as tf
    import tf2onnx

    model = tf.keras.applications.MobileNetV3Large(input_shape=(224, 224, 3), weights=None)
    signature = [tf.TensorSpec((None, 224, 224, 3), tf.float32)]
    tf2onnx.convert.from_keras(model, signature, opset=17, output_path=str(path))


def block_median_s(call: Callable[[], object]) -> float:
    samples = []
    for _ in range(BLOCK_RUNS):
        start = time.perf_counter()
        call()
        samples.append(time.perf_counter() - start)
    return statistics.median(samples)


def compare(engine: str, files: list[Path], rounds: int) -> None:
    calls = []
    for file in files:
        session = load_engine(engine).open(file, "cpu", SessionOptions(threads=1, batch=1))
        name = onnx.load(file).graph.input[0].name
        calls.append(session.bind({name: pictures(1, 224, 224, 1).astype("float32")}))
    ratios = []
    for _ in range(rounds):
        theirs_s, ours_s = (block_median_s(call) for call in calls)
        ratios.append(theirs_s / ours_s)
        print(f"{engine}:cpu  tf2onnx {theirs_s * 1e3:.2f} ms  mbexport {ours_s * 1e3:.2f} ms  ratio {ratios[-1]:.2f}")
    print(f"{engine}:cpu  median ratio {statistics.median(ratios):.2f}, range {min(ratios):.2f} to {max(ratios):.2f}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=8)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        standard = Path(folder) / "standard.onnx"
        standard_export(standard)
        artifact = build(ModelSpec(variant="large"), out=Path(folder)).artifact
        for file in (standard, artifact.path / "model.onnx"):
            ops = Counter(node.op_type for node in onnx.load(file).graph.node)
            print(f"{file.name}: {ops.total()} nodes, {ops['Transpose']} Transposes")
        for engine in ("ort", "openvino"):
            compare(engine, [standard, artifact.path / "model.onnx"], rounds)


if __name__ == "__main__":
    main()
