"""How many times faster than float32 each file is: long blocks in turn in one process, batch 1.

On one thread, and at the engine's default options, where its threads are its own affair.
"""

from __future__ import annotations

import itertools
import tempfile
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import onnx

from mbexport.artifact import read_reference
from mbexport.bench.statistics import median, median_interval
from mbexport.bench.timing import Limits, time_calls
from mbexport.images import picture_size
from mbexport.runtimes import SessionOptions, load_engine, split_target
from precision_bench.accuracy import BF16, TARGETS, chosen, say
from precision_bench.networks import REAL
from precision_bench.records import Timed
from precision_bench.variants import FULL, made, variants

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from mbexport.quantities import Mode
    from mbexport.quantize.placement import Engine
    from precision_bench.networks import Net
    from precision_bench.records import Found
    from precision_bench.subject import Subject

FLOAT32 = "float32"
_BLOCK = Limits(20, 0.15, 0.6)
"""Calls, and seconds, that one row measures before the next has its turn."""

_PHOTOGRAPHS = 16

Rows = dict[str, tuple[Path, "Mode"]]


def measure(net: Net, subject: Subject, found: Found, rounds: int) -> Iterator[None]:
    """Every variant of a network with real weights, the whole recipe of the others, each form on both engines."""
    wanted = [
        (target, threads, kept)
        for target in TARGETS.values()
        for threads, kept in ((1, found.timed), (None, found.by_default))
        if not any((one.network, one.target) == (net.name, target) for one in kept)
    ]
    if not wanted:
        return
    with tempfile.TemporaryDirectory(prefix="mbexport-") as folder:
        models = dict(_models(net, subject, found, Path(folder)))
        for target, threads, kept in wanted:
            say(f"{net.name}: timing on {target}, {threads or 'default'} threads")
            rows = rows_on(subject, target, models)
            if threads is None:
                rows = {name: row for name, row in rows.items() if name in {FLOAT32, FULL}}
            kept += [_timed(net.name, target, *row) for row in time_rows(subject, target, rows, rounds, threads)]
            yield


def rows_on(subject: Subject, target: str, models: Mapping[tuple[Engine, str], Path]) -> Rows:
    """Float32 first; then bf16; the whole recipe in both forms; and the variants in this engine's own."""
    own = split_target(target)[0]
    forms = {form for form, _ in models}
    source = subject.artifact.path / "model.onnx"
    rows: Rows = {FLOAT32: (source, "parity")}
    if own == "openvino":
        rows[BF16] = (source, "production")
    for (form, name), path in models.items():
        if len(forms) == 1 or form == own or name == FULL:
            foreign = len(forms) > 1 and form != own
            rows[f"{name}, the file for {form}" if foreign else name] = (path, "production")
    return rows


def time_rows(
    subject: Subject, target: str, rows: Rows, rounds: int, threads: int | None = 1
) -> list[tuple[str, list[float], list[float], str]]:
    """Row, its median seconds in each round, those of the first row, and the precision that the engine reports."""
    engine, device = split_target(target)
    contract = subject.artifact.manifest.input
    picture = read_reference(subject.artifact).inputs[contract.name][:1]
    medians_s: dict[str, list[float]] = {name: [] for name in rows}
    with ExitStack() as stack:
        sessions = {}
        for name, (path, mode) in rows.items():
            options = SessionOptions(mode=mode, threads=threads, size=picture_size(contract))
            sessions[name] = stack.enter_context(load_engine(engine).open(path, device, options))
        calls = {name: session.bind({contract.name: picture}) for name, session in sessions.items()}
        for turn in range(-1, rounds):  # the first is a warm-up
            for name, call in calls.items():
                samples_ns, _ = time_calls(itertools.repeat(call), _BLOCK)
                if turn >= 0:
                    medians_s[name].append(median(samples_ns) * 1e-9)
        precisions = {name: session.facts().precision for name, session in sessions.items()}
    first = next(iter(rows))
    return [(name, taken_s, medians_s[first], precisions[name]) for name, taken_s in medians_s.items()]


def _models(net: Net, subject: Subject, found: Found, folder: Path) -> Iterator[tuple[tuple[Engine, str], Path]]:
    """A file of each variant. Times depend on its form alone, so a few photographs are enough."""
    few = replace(subject, most=_PHOTOGRAPHS)
    for form in net.forms:
        islands = chosen(subject, form, net.forms, found)
        for variant in variants(subject.network, form, islands, subject.calibrating(0)[:1]):
            if variant.name == FULL or net in REAL:
                say(f"{net.name}, {form}: make {variant.name}")
                path = folder / f"{form}-{variant.name}.onnx"
                onnx.save(made(few, form, variant, 0, islands), path)
                yield (form, variant.name), path


def _timed(
    network: str, target: str, row: str, taken_s: Sequence[float], first_s: Sequence[float], precision: str
) -> Timed:
    ratios = [one / other for one, other in zip(first_s, taken_s, strict=True)]
    return Timed(
        network=network,
        target=target,
        row=row,
        ratio=median(ratios),
        ratio_ci=median_interval(ratios),
        p50_s=median(taken_s),
        precision=precision,
    )
