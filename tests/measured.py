"""Made-up measurements for tests: every figure that a test does not choose is a plain constant."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from mbexport.bench.plan import WorkerAnswer
from mbexport.profile import Conditions, Hardware, LatencyProfile, Measurement, Replicate, ThreadPlan
from mbexport.samples import packed
from mbexport.spec import ModelSpec

if TYPE_CHECKING:
    from collections.abc import Sequence

HARDWARE = Hardware(
    architecture="x86_64",
    cpu="AMD EPYC",
    cpu_family=25,
    cpu_model=17,
    physical_cores=2,
    logical_cores=4,
    memory_bytes=8 * 2**30,
    instruction_sets=["avx2"],
)


def replicate(samples_ns: Sequence[int], **changes: Any) -> Replicate:
    """A quiet process with these samples, of 2 ms each as far as its throughput goes."""
    quiet = Replicate(
        samples=packed(samples_ns),
        import_s=0.1,
        load_s=0.2,
        first_inference_s=0.3,
        warmup_runs=20,
        warmup_settled=True,
        throughput_per_s=500.0,
        memory_loaded_bytes=10_000_000,
        memory_inferred_bytes=12_000_000,
        memory_peak_bytes=90_000_000,
        before=Conditions(),
        after=Conditions(steal_share=0.0, others_share=0.0),
    )
    return msgspec.structs.replace(quiet, **changes)


def measurement(**changes: Any) -> Measurement:
    usual = Measurement(
        runtime="ort:cpu",
        mode="parity",
        precision="f32",
        threads=1,
        thread_plan=ThreadPlan(threads=2, most=4, reasons=["2 physical cores"]),
        batch=1,
        placement={"cpu": 5},
        engine_options={},
        versions={"onnxruntime": "1.31.1"},
        inputs_sha256="00",
        measured_on="2026-01-02",
        replicates=[replicate([2_000_000] * 300)] * 3,
        verdict="ok",
        reasons=[],
    )
    return msgspec.structs.replace(usual, **changes)


def profile(*rows: Measurement, **changes: Any) -> LatencyProfile:
    usual = LatencyProfile(
        artifact="tiny", artifact_sha256="aa", spec=ModelSpec(variant="small"), hardware=HARDWARE, measurements=[*rows]
    )
    return msgspec.structs.replace(usual, **changes)


def answer(samples_ns: Sequence[int], **changes: Any) -> WorkerAnswer:
    usual = WorkerAnswer(
        replicate=replicate(samples_ns),
        precision="f32",
        placement={"cpu": 5},
        engine_options={},
        versions={"onnxruntime": "1.31.1"},
        inputs_sha256="00",
    )
    return msgspec.structs.replace(usual, **changes)
