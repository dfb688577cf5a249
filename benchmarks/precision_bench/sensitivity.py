"""What each block loses in 8 bits, and what it would cost to leave it in float32."""

from __future__ import annotations

import re
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import onnx

from mbexport.bench.statistics import median, median_interval
from mbexport.quantize.change import change
from mbexport.quantize.placement import place_all_but
from precision_bench.accuracy import TARGETS, say
from precision_bench.networks import SMALL
from precision_bench.records import Left
from precision_bench.timing import time_rows
from precision_bench.variants import QUICK, settled

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mbexport.quantize.placement import Engine
    from precision_bench.records import Found
    from precision_bench.subject import Subject

_PHOTOGRAPHS = 64
"""That calibrate, and as many others that judge; weights are not fitted, as when islands are chosen."""
EVERYTHING = "everything in 8 bits"


def measure(subject: Subject, found: Found, rounds: int) -> Iterator[None]:
    """Every block of each form, on its own engine."""
    few = replace(subject, most=_PHOTOGRAPHS)
    for form in SMALL.forms:
        if not any(one.form == form for one in found.sensitivity):
            found.sensitivity += _of_form(few, form, rounds)
            yield


def blocks(subject: Subject) -> dict[str, set[str]]:
    """The name that the products of a block begin with -> their outputs."""
    found: dict[str, set[str]] = {}
    for output, product in subject.network.products.items():
        layer = product.name.split("/")[0]
        block = re.match(r"(expanded_conv(_\d+)?)_[a-z]", layer)
        found.setdefault(block[1] if block else layer, set()).add(output)
    return found


def _of_form(subject: Subject, form: Engine, rounds: int) -> list[Left]:
    target, sqnr_db = TARGETS[form], {}
    with tempfile.TemporaryDirectory(prefix="mbexport-") as folder:
        paths = {}
        for block, outputs in {EVERYTHING: set[str](), **blocks(subject)}.items():
            say(f"{subject.name}, {form}: {block} in float32" if outputs else f"{subject.name}, {form}: {block}")
            model = settled(
                subject.network, place_all_but(subject.network, form, outputs), subject.calibrating(0), QUICK
            )
            paths[block] = Path(folder) / f"{block}.onnx"
            onnx.save(model, paths[block])
            sqnr_db[block] = _sqnr_db(subject, model, target)
        say(f"{subject.name}, {form}: time of each")
        timed = time_rows(subject, target, {block: (path, "production") for block, path in paths.items()}, rounds)
    ratios = {row: [one / first for one, first in zip(taken, firsts, strict=True)] for row, taken, firsts, _ in timed}
    return [
        Left(
            form=form,
            block=block,
            gain_db=sqnr_db[block] - sqnr_db[EVERYTHING],
            ratio=median(ratios[block]),
            ratio_ci=median_interval(ratios[block]),
        )
        for block in sqnr_db
        if block != EVERYTHING
    ]


def _sqnr_db(subject: Subject, model: onnx.ModelProto, target: str) -> float:
    places = range(1, 2 * _PHOTOGRAPHS, 2)
    found = change(subject.output, subject.exact[places], subject.answers(model, target, subject.shown[places]), None)
    assert found.sqnr_db is not None
    return found.sqnr_db
