"""Many builds in one process: seconds a cell, over bare tf2onnx's on the same network, and the memory that stays.

    python benchmarks/many_builds.py [--builds 30]

Cells of benchmarks/grid.py, drawn over the whole of it, the largest of them first: TensorFlow's allocator for oneDNN
keeps what it once took, so memory follows the largest network so far. Bars: a median of 2.5 s where bare tf2onnx takes
4 to 5 s, and after all builds at most 20% more resident memory than after three.
"""

from __future__ import annotations

import argparse
import gc
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from grid import PARTS
from mbexport.build import import_keras
from mbexport.memory import build_bytes
from mbexport.pipeline import build

if TYPE_CHECKING:
    from mbexport.spec import ModelSpec


def bare_s(spec: ModelSpec) -> float:
    """Seconds to make the network with Keras and to call tf2onnx: no calibration, no reference, no check."""
    import keras
    import tensorflow as tf
    import tf2onnx

    shape = (*spec.size, 3)
    options = {"minimalistic": spec.minimalistic} if spec.is_v3 else {}
    made = {
        "v2": keras.applications.MobileNetV2,
        "large": keras.applications.MobileNetV3Large,
        "small": keras.applications.MobileNetV3Small,
    }[spec.variant]
    start = time.perf_counter()
    model = made(input_shape=shape, alpha=spec.alpha, include_top=spec.include_top, weights=None, **options)
    tf2onnx.convert.from_keras(model, [tf.TensorSpec((None, *shape), tf.float32)], opset=17)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--builds", type=int, default=30)
    count = parser.parse_args().builds
    cells = [cell for part in PARTS.values() for cell in part()]
    random.Random(0).shuffle(cells)
    import_keras()
    ours_s, ratios, memory_bytes = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        chosen = cells[:count]
        largest, export, _ = max(chosen, key=lambda cell: build_bytes(cell[0]))
        build(largest, export=export, out=Path(folder))  # not counted: it imports and compiles
        for number, (spec, export, _) in enumerate(chosen, 1):
            start = time.perf_counter()
            build(spec, export=export, out=Path(folder))
            ours_s.append(time.perf_counter() - start)
            memory_bytes.append(psutil.Process().memory_info().rss)
            note = ""
            if number % 3 == 0:
                ratios.append(ours_s[-1] / bare_s(spec))
                note = f"  over bare tf2onnx {ratios[-1]:.2f}"
                gc.collect()
            print(
                f"{number:3} {spec.slug:40} {ours_s[-1]:5.2f} s  {memory_bytes[-1] / 2**20:5.0f} MiB{note}", flush=True
            )
    print(f"median {statistics.median(ours_s):.2f} s, of the ratios to bare tf2onnx {statistics.median(ratios):.2f}")
    print(f"memory after {count} builds over that after 3: {memory_bytes[-1] / memory_bytes[2]:.2f}")


if __name__ == "__main__":
    main()
