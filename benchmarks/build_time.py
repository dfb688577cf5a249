"""Whole-process time of ``mbexport build --variant large`` against a bare tf2onnx script, alternating.

    python benchmarks/build_time.py [--runs 5]

The bare script imports TensorFlow, makes the same network and calls ``tf2onnx.convert.from_keras``: no calibration, no
reference, no check. The bar is a median ratio of at most 1.1.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time

BARE = """
import sys
import tensorflow as tf
import tf2onnx
model = tf.keras.applications.MobileNetV3Large(input_shape=(224, 224, 3), weights=None)
tf2onnx.convert.from_keras(model, [tf.TensorSpec((None, 224, 224, 3), tf.float32)], output_path=sys.argv[1] + "/m.onnx")
"""
QUIET = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}


def seconds(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, env=QUIET)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        ours = [sys.executable, "-m", "mbexport_cli", "build", "--variant", "large", "--out", folder]
        bare = [sys.executable, "-c", BARE, folder]
        for run in range(runs + 1):
            ours_s, bare_s = seconds(ours), seconds(bare)
            note = " (warm-up, not counted)" if run == 0 else ""
            print(f"mbexport {ours_s:6.2f} s   bare tf2onnx {bare_s:6.2f} s   ratio {ours_s / bare_s:.3f}{note}")
            if run:
                ratios.append(ours_s / bare_s)
    print(f"median ratio {statistics.median(ratios):.3f} (bar 1.1), range {min(ratios):.3f} to {max(ratios):.3f}")


if __name__ == "__main__":
    main()
