"""The Markdown page: docs/forms.md, and what is printed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from form_bench.rewrites import CANONICAL
from mbexport import hardware
from mbexport.bench import statistics
from peer_bench.prepare import version_of
from peer_bench.ratios import paired_ratio
from peer_bench.records import Refused, Timed
from peer_bench.report import machine, shown

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Mapping, Sequence

    from peer_bench.records import ModelFile

    Runs = Sequence[Timed | Refused]
    Outcomes = Mapping[str, Mapping[str, Runs]]
    Results = Mapping[str, tuple[Mapping[str, ModelFile], Outcomes]]

METHOD = """\
p50 of the canonical graph with one part written otherwise, over p50 of the canonical graph: the median over {rounds}
rounds and the sign test's interval (95% from 6 rounds on). Above 1 the canonical form is the faster one. Every process
is fresh, checks its answers to four pictures against Keras's float64 (SQNR of at least 80 dB), warms up, and runs for
{min_time_s:g} s at least; within a round all forms take one turn each, in an order drawn anew. Threads: {threads};
batch 1, float32 pinned, dynamic batch in the file unless said otherwise; OpenVINO always gets a static one.

One file is kept for both runtimes unless another form gains more than 5% on one of them."""


def page(results: Results, options: argparse.Namespace, day: str) -> str:
    packages = ("mbexport", "onnxruntime-gpu", "onnxruntime", "openvino", "numpy")
    versions = ", ".join(f"{name} {version}" for name in packages if (version := version_of(name)) is not None)
    method = METHOD.format(rounds=options.replicates, min_time_s=options.min_time_s, threads=options.threads)
    parts = [
        "# Forms of the graph (`python benchmarks/forms.py`)",
        "Written by the program; do not edit.",
        f"{machine(hardware.detect())}; {day}. {versions}.",
        method,
    ]
    for slug, (files, outcomes) in results.items():
        parts += [f"## {slug}", "\n".join(_table(files, outcomes))]
    return "\n\n".join(parts) + "\n"


def _table(files: Mapping[str, ModelFile], outcomes: Outcomes) -> Iterator[str]:
    yield "| form | nodes | ONNX Runtime | OpenVINO |"
    yield "|---|---:|---|---|"
    for name, file in files.items():
        figures = [_figure(name, outcomes[engine]) for engine in ("ort", "openvino")]
        yield f"| {name} | {file.nodes} | {figures[0]} | {figures[1]} |"


def _figure(name: str, runs: Mapping[str, Runs]) -> str:
    """The canonical form's p50 in ms, another's ratio to it, or why there is none."""
    refused = next((run for run in runs[name] if isinstance(run, Refused)), None)
    if refused is not None:
        return refused.reason
    if name == CANONICAL:
        return f"{statistics.median(_medians_s(runs[name])) * 1e3:.3f} ms"
    return shown(paired_ratio(_medians_s(runs[name]), _medians_s(runs[CANONICAL])))


def _medians_s(runs: Runs) -> list[float]:
    return [statistics.median([sample * 1e-9 for sample in run.samples_ns]) for run in runs if isinstance(run, Timed)]
