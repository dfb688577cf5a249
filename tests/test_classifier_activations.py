"""Whatever Keras accepts as ``classifier_activation``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from mbexport.errors import SpecError
from mbexport.pipeline import build
from mbexport.spec import ACTIVATIONS, ModelSpec
from mbexport.validate import validate

if TYPE_CHECKING:
    from pathlib import Path

TARGETS = ["ort:cpu", "openvino:cpu"]


def test_every_name_that_keras_knows() -> None:
    import keras

    known = {function.__name__ for function in keras.src.activations.ALL_OBJECTS}
    assert set(ACTIVATIONS) - {"none"} == known - {"threshold"}
    with pytest.raises(TypeError):  # so Keras itself cannot use it by name
        keras.layers.Activation("threshold")(np.ones((1, 3)))


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(SpecError, match="unknown classifier activation 'softmaks'"):
        ModelSpec(variant="v2", classifier_activation="softmaks")


def check(variant: str, activation: str, tmp_path: Path) -> None:
    spec = ModelSpec(
        variant=variant,  # type: ignore[arg-type]
        alpha=0.35,
        height=32,
        width=32,
        classes=10,
        classifier_activation=activation,
    )
    artifact = build(spec, out=tmp_path).artifact
    (output,) = artifact.manifest.outputs
    kinds = {"softmax": "probabilities", "none": "logits", "linear": "logits", "log_softmax": "logits"}
    assert output.kind == kinds.get(activation, "features")
    report = validate(artifact, TARGETS)
    assert report.passed, report.rows


@pytest.mark.parametrize(("variant", "activation"), [("v2", "sigmoid"), ("small", "gelu"), ("small", "celu")])
def test_some_activations(variant: str, activation: str, tmp_path: Path) -> None:
    check(variant, activation, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["v2", "small"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation(variant: str, activation: str, tmp_path: Path) -> None:
    check(variant, activation, tmp_path)
