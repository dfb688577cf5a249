"""The gap between a network's latency and what its arithmetic alone would take, part by part; writes docs/gap.md.

    python benchmarks/gap.py

The limit is the multiply-accumulates over the rate of the best 1x1 convolution that was found on this machine. The
parts are from each runtime's own profiler, which slows a run a little; the latency beside them is measured without it.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from gap_bench.parts import products
from mbexport import hardware, serde
from mbexport.artifact import read_reference
from mbexport.bench.timing import Limits, time_calls, warm_up
from mbexport.pipeline import build
from mbexport.runtimes import SessionOptions, load_engine
from mbexport.runtimes.profiled import Watch, load_profiler
from mbexport.spec import ModelSpec
from peer_bench.prepare import version_of
from peer_bench.report import machine

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from gap_bench.parts import Product
    from mbexport.runtimes.profiled import ProfiledNode

ROOT = Path(__file__).parents[1]
SPECS = (ModelSpec(variant="large"), ModelSpec(variant="small"), ModelSpec(variant="v2"))
ENGINES = ("ort", "openvino")
ONE_THREAD = SessionOptions(mode="parity", threads=1, batch=1)
CONVOLUTIONS = ((256, 256, 28), (512, 512, 14), (128, 128, 56), (96, 576, 14), (480, 80, 14))
"""(channels in, channels out, side) of the 1x1 convolutions that the machine's rate is sought with."""
RUNS = 300
MOST_S = 30.0
"""How long a profiler may watch; OpenVINO's needs the model compiled anew for every ten runs."""
METHOD = """\
One thread, batch 1, float32. The fastest 1x1 convolution here makes {rate:.0f} GFLOP/s; what a network's
multiply-accumulates would take at that rate is its limit. The parts are medians from each runtime's own profiler."""


def latency_s(engine: str, path: Path, feeds: dict[str, NDArray[np.float32]]) -> float:
    """Median of single calls, one thread."""
    with load_engine(engine).open(path, "cpu", ONE_THREAD) as session:
        calls = itertools.repeat(session.bind(feeds))
        warm_up(calls)
        samples_ns, _ = time_calls(calls, Limits(RUNS))
    return statistics.median(samples_ns) * 1e-9


def best_rate(folder: Path) -> float:
    """Multiply-accumulates a second of the fastest 1x1 convolution on either runtime."""
    rates = []
    for channels, filters, side in CONVOLUTIONS:
        kernel = np.random.default_rng(0).normal(size=(filters, channels, 1, 1)).astype(np.float32)
        ends = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, count, side, side])
            for name, count in (("x", channels), ("y", filters))
        ]
        node = helper.make_node("Conv", ["x", "w"], ["y"])
        graph = helper.make_graph([node], "conv", ends[:1], ends[1:], [numpy_helper.from_array(kernel, "w")])
        path = folder / "conv.onnx"
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
        feeds = {"x": np.random.default_rng(1).normal(size=(1, channels, side, side)).astype(np.float32)}
        rates += [kernel.size * side**2 / latency_s(engine, path, feeds) for engine in ENGINES]
    return max(rates)


def table(found: list[Product], timed: Sequence[ProfiledNode], rate: float) -> Iterator[str]:
    """One row a kind of node, the costliest first."""
    kind_of = {name: product.kind for product in found for name in product.names}
    macs: Counter[str] = Counter()
    for product in found:
        macs[product.kind] += product.macs
    times_us: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    for node in (node for node in timed if any(node.times_s)):
        names = sorted([node.name, *node.origins])
        kinds = (kind_of[name] for name in names if name in kind_of and _is_product(node.operator))
        kind = next(kinds, node.operator)
        times_us[kind] += statistics.median(node.times_s) * 1e6  # type: ignore[assignment]
        counts[kind] += 1
    total_us = sum(times_us.values())
    yield "| part | nodes | ms | share | at that rate, ms | over it, ms |"
    yield "|---|---:|---:|---:|---:|---:|"
    for kind, time_us in times_us.most_common():
        limit_ms = macs[kind] / rate * 1e3
        yield (
            f"| {kind} | {counts[kind]} | {time_us / 1e3:.3f} | {time_us / total_us:.1%} | {limit_ms:.3f} | "
            f"{time_us / 1e3 - limit_ms:.3f} |"
        )


def _is_product(op: str) -> bool:
    return any(word in op for word in ("Conv", "Gemm", "MatMul", "FullyConnected"))


def page(folder: Path) -> str:
    rate = best_rate(folder)
    packages = ("mbexport", "onnxruntime-gpu", "onnxruntime", "openvino", "numpy")
    versions = ", ".join(f"{name} {version}" for name in packages if (version := version_of(name)) is not None)
    parts = [
        "# The gap to the arithmetic (`python benchmarks/gap.py`)",
        "Written by the program; do not edit.",
        f"{machine(hardware.detect())}; {datetime.now(UTC).date().isoformat()}. {versions}.",
        METHOD.format(rate=2e-9 * rate),
    ]
    for spec in SPECS:
        artifact = build(spec, out=folder).artifact
        feeds = {name: array[:1] for name, array in read_reference(artifact).inputs.items()}
        for engine in ENGINES:
            path = artifact.model_path(f"{engine}:cpu")
            found = products(onnx.load(path))
            limit_s = sum(product.macs for product in found) / rate
            measured_s = latency_s(engine, path, feeds)
            profile = load_profiler(engine)(path, "cpu", ONE_THREAD, [feeds], Watch(RUNS, MOST_S))
            parts += [
                f"## {spec.slug}, {engine}",
                f"p50 {measured_s * 1e3:.3f} ms, limit {limit_s * 1e3:.3f} ms: {measured_s / limit_s:.2f} times.",
                "\n".join(table(found, profile.nodes, rate)),
            ]
    return "\n\n".join(parts) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--docs", type=Path, default=ROOT / "docs" / "gap.md", help="the page to write")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        text = page(Path(folder))
    serde.write_atomic(options.docs, text.encode())
    print(text)


if __name__ == "__main__":
    main()
