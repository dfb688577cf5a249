"""Which form of each part of the graph is the fastest: other exact forms over the canonical one; writes docs/forms.md.

    python benchmarks/forms.py

MobileNetV3 Large, Small and MobileNetV2 on both CPU runtimes, one thread, batch 1, float32. Every form is checked
against Keras's answers before it is timed.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnx_ir as ir

from form_bench.report import page
from form_bench.rewrites import CANONICAL, forms
from mbexport import serde
from mbexport.artifact import read_reference
from mbexport.compare import centred_log
from mbexport.graph import tools
from mbexport.pipeline import build
from mbexport.spec import ModelSpec
from peer_bench.measure import run_process, shuffled, task_of
from peer_bench.records import ModelFile

if TYPE_CHECKING:
    from mbexport.artifact import Artifact
    from peer_bench.records import Refused, Timed

    Outcomes = dict[str, dict[str, list[Timed | Refused]]]
    """Engine -> form -> one outcome a round."""

ROOT = Path(__file__).parents[1]
SPECS = (ModelSpec(variant="large"), ModelSpec(variant="small"), ModelSpec(variant="v2"))
ENGINES = ("ort", "openvino")


def write_forms(artifact: Artifact, work: Path) -> dict[str, ModelFile]:
    """The canonical file and every form that differs from it."""
    folder = work / artifact.manifest.slug
    folder.mkdir()
    feeds = folder / "feeds.npz"
    reference = read_reference(artifact)
    (inputs,), (truth,) = reference.inputs.values(), reference.keras_float64.values()
    np.savez(feeds, input=inputs, logits=centred_log(truth))
    canonical = artifact.model_path("ort:cpu").read_bytes()
    files = {CANONICAL: _file(work, folder / "canonical.onnx", canonical, feeds)}
    for number, form in enumerate(forms()):
        model = ir.from_proto(onnx.load_from_string(canonical))
        before = ir.to_proto(model).SerializeToString(deterministic=True)
        form.rewrite(model)
        tools.finish(model, modified=True)
        data = ir.to_proto(model).SerializeToString(deterministic=True)
        if data != before:
            files[f"{form.part}: {form.name}"] = _file(work, folder / f"{number}.onnx", data, feeds)
    return files


def _file(work: Path, path: Path, data: bytes, feeds: Path) -> ModelFile:
    path.write_bytes(data)
    graph = onnx.load_from_string(data).graph
    return ModelFile(
        path=path.relative_to(work).as_posix(),
        sha256=hashlib.sha256(data).hexdigest(),
        input_name=graph.input[0].name,
        answers="probabilities",
        feeds=feeds.relative_to(work).as_posix(),
        nodes=len(graph.node),
        transposes=sum(node.op_type == "Transpose" for node in graph.node),
    )


def measure(work: Path, slug: str, files: dict[str, ModelFile], options: argparse.Namespace) -> Outcomes:
    """Rounds of fresh processes: each form once on each engine, in a new order each time."""
    outcomes: Outcomes = {engine: {name: [] for name in files} for engine in ENGINES}
    for replicate in range(options.replicates):
        for engine in ENGINES:
            print(f"{slug} {engine} round {replicate + 1} of {options.replicates}", file=sys.stderr, flush=True)
            for name in shuffled(list(files), (replicate, f"{slug}/{engine}", options.threads)):
                task = task_of(work, f"{engine}/{name}", files[name], options.threads, options.min_time_s)
                outcomes[engine][name].append(run_process(task))
    return outcomes


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--docs", type=Path, default=ROOT / "docs" / "forms.md", help="the page to write")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--replicates", type=int, default=6, help="rounds; 6 are the fewest with a 95%% interval")
    parser.add_argument("--min-time-s", type=float, default=0.5, help="of measuring, in each process")
    options = parser.parse_args()
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        for spec in SPECS:
            artifact = build(spec, out=work / "artifacts").artifact
            files = write_forms(artifact, work)
            results[spec.slug] = files, measure(work, spec.slug, files, options)
    text = page(results, options, datetime.now(UTC).date().isoformat())
    serde.write_atomic(options.docs, text.encode())
    print(text)


if __name__ == "__main__":
    main()
