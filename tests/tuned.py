"""A made-up tuned configuration for tests."""

from __future__ import annotations

from typing import Any

import msgspec

from mbexport.tuned import AccuracyCheck, Configuration, Ratio, TunedConfiguration


def tuned(**changes: Any) -> TunedConfiguration:
    """For p50 within half a point, of the made-up profile's own network."""
    usual = TunedConfiguration(
        objective="p50",
        max_drop=0.005,
        go=True,
        configuration=Configuration(
            artifact="tiny",
            sha256="aa",
            model="model.onnx",
            model_sha256="aa",
            runtime="ort:cpu",
            mode="production",
            threads=2,
        ),
        precision="bf16",
        accuracy=AccuracyCheck(rule="sqnr", inside=True),
        over_float32=Ratio(value=1.5, ci=(1.4, 1.6)),
        over_defaults=Ratio(value=2.0, ci=(1.9, 2.1)),
        engine_options={},
        versions={"onnxruntime": "1.31.1"},
        tuned_on="2026-01-10",
        trials=[],
    )
    return msgspec.structs.replace(usual, **changes)
