"""The parts that judge answers: ablation, dithered weights, and the networks without accuracy."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import numpy_helper

from mbexport.artifact import read_reference
from mbexport.quantize.change import change
from mbexport.quantize.derive import bf16_sqnr_db
from mbexport.quantize.network import Network
from mbexport.runtimes import SessionOptions, load_engine
from precision_bench.judge import judge
from precision_bench.records import Distance
from precision_bench.variants import FULL, Variant, islands_of, made, variants

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mbexport.quantize.placement import Engine, Islands
    from precision_bench.records import Found, Judged
    from precision_bench.subject import Subject

BF16 = "bf16 of the float32 file"
SEEDS = (0, 1, 2)
TARGETS = {"ort": "ort:cpu", "openvino": "openvino:cpu"}


def targets_of(form: Engine, forms: tuple[Engine, ...]) -> list[str]:
    """Where a file of this form runs: on both engines where it is the only one."""
    return list(TARGETS.values()) if len(forms) == 1 else [TARGETS[form]]


def chosen(subject: Subject, form: Engine, forms: tuple[Engine, ...], found: Found) -> Islands:
    """What stays in float32, as ``mbexport quantize`` would choose; kept."""
    key = f"{subject.name}/{form}"
    if key not in found.islands:
        say(f"{key}: islands")
        found.islands[key] = islands_of(subject, form, targets_of(form, forms))
    return found.islands[key]


def ablation(subject: Subject, forms: tuple[Engine, ...], found: Found) -> Iterator[None]:
    """Every variant of every form; yields whenever there is more to keep."""
    for form in forms:
        islands = chosen(subject, form, forms, found)
        for variant in variants(subject.network, form, islands, subject.calibrating(0)[:1]):
            # The whole recipe is judged on both engines, to see whether one file could serve both.
            where = list(TARGETS.values()) if variant.name == FULL else targets_of(form, forms)
            if not any(_is(one, subject, form, variant) for one in found.ablation):
                say(f"{subject.name}, {form}: {variant.name}")
                found.ablation += _judged([subject], form, variant, islands, where)
                yield


def dithered(subject: Subject, forms: tuple[Engine, ...], found: Found) -> Iterator[None]:
    """The whole recipe on weights moved off the grid that they were recovered from, the files of all seeds pooled."""
    moved: list[Subject] = []
    for form in forms:
        if not any(_is(one, subject, form, Variant(FULL)) for one in found.dithered):
            islands = chosen(subject, form, forms, found)
            moved = moved or [replace(subject, model=_moved(subject.model, seed)) for seed in SEEDS]
            say(f"{subject.name}, {form}: dithered")
            found.dithered += _judged(moved, form, Variant(FULL), islands, targets_of(form, forms))
            yield


def distances(subject: Subject, forms: tuple[Engine, ...], found: Found) -> Iterator[None]:
    """Int8 and bf16, on the artifact's own pictures and on the photographs that did not calibrate the first half."""
    if any(one.network == subject.name and one.what == "int8" for one in found.distances):
        return
    say(f"{subject.name}: distances")
    predicted_db = bf16_sqnr_db(subject.artifact)[subject.output.name]
    found.distances.append(
        Distance(network=subject.name, what="bf16 predicted", target="", reference_db=predicted_db, photographs_db=None)
    )
    if _has_bf16(subject):
        found.distances.append(distance(subject, "bf16", TARGETS["openvino"], subject.model))
        if subject.artifact.manifest.weights.kind != "random":
            found.others += judge([subject], None, BF16, [TARGETS["openvino"]], lambda subject, _half: subject.model)
    for form in forms:
        model = made(subject, form, Variant(FULL), 0, chosen(subject, form, forms, found))
        found.distances += [distance(subject, "int8", target, model) for target in targets_of(form, forms)]
    yield


def distance(subject: Subject, what: str, target: str, model: onnx.ModelProto | Path) -> Distance:
    """A file calibrated on the first half, or on nothing, at the engine's default options."""
    reference, places = read_reference(subject.artifact), subject.judging(0)
    own = subject.answers(model, target, reference.inputs[subject.artifact.manifest.input.name])
    truth = reference.keras_float64[subject.output.name].astype(np.float32)
    reference_db = change(subject.output, truth, own, None).sqnr_db
    shown = subject.answers(model, target, subject.shown[places])
    photographs_db = change(subject.output, subject.exact[places], shown, None).sqnr_db
    assert reference_db is not None
    return Distance(
        network=subject.name, what=what, target=target, reference_db=reference_db, photographs_db=photographs_db
    )


def say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


def _is(one: Judged, subject: Subject, form: Engine, variant: Variant) -> bool:
    return (one.network, one.form, one.variant) == (subject.name, form, variant.name)


def _judged(
    subjects: list[Subject], form: Engine, variant: Variant, islands: Islands, targets: list[str]
) -> list[Judged]:
    return judge(
        subjects, form, variant.name, targets, lambda subject, half: made(subject, form, variant, half, islands)
    )


def _has_bf16(subject: Subject) -> bool:
    path = subject.artifact.model_path(TARGETS["openvino"])
    with load_engine("openvino").open(path, "cpu", SessionOptions(mode="production")) as session:
        return session.facts().precision == "bf16"


def _moved(model: onnx.ModelProto, seed: int) -> onnx.ModelProto:
    """Every kernel moved by up to half of its 8-bit step, evenly, each output's step its own."""
    random, moved = np.random.default_rng(seed), onnx.ModelProto()
    moved.CopyFrom(model)
    tensors = {tensor.name: tensor for tensor in moved.graph.initializer}
    network = Network(model)
    for product in network.products.values():
        kernel = product.kernel
        steps = np.abs(kernel).max(axis=(1, 2, 3), keepdims=True) / 127
        shifted = (kernel + random.uniform(-0.5, 0.5, kernel.shape) * steps).astype(np.float32)
        tensor = tensors[product.node.input[1]]
        is_matrix = len(tensor.dims) == 2  # a 1x1 convolution that became a Gemm has its four axes in the file
        tensor.CopyFrom(numpy_helper.from_array(product.stored(shifted) if is_matrix else shifted, tensor.name))
    return moved
