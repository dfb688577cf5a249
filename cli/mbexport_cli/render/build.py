"""What a build did: the result, and with ``-v`` each pass as it went."""

import textwrap
import traceback
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from rich.console import RenderableType
from rich.text import Text

from mbexport_cli.render.parts import decibels, heading, new_table, note

if TYPE_CHECKING:
    from mbexport.export import BuildResult
    from mbexport.graph import PassStep
    from mbexport.manifest import GraphReport, PassReport
    from mbexport.reproduce import Reproduction

_COLUMNS = 80
_GLUE = "\N{NO-BREAK SPACE}"


def build(result: "BuildResult", reproduction: "Reproduction | None" = None) -> Iterator[RenderableType]:
    report = result.artifact.manifest.graph
    yield from heading(result.artifact)
    yield from (note(line) for line in result.notes)
    yield from graph(report)
    steps = new_table("pass", "changed", "SQNR dB", right=("SQNR dB",))
    for step in report.passes:
        sqnr = decibels(step.sqnr_db, exact=True) if step.modified else "-"
        steps.add_row(step.name, _outcome(step), sqnr)
    yield steps
    yield from rollbacks(report)
    yield ""
    yield f"built in {sum(result.timings_s.values()):.1f} s: {result.artifact.path}"
    if reproduction is not None:
        yield from _reproduction(result, reproduction)


def graph(report: "GraphReport") -> Iterator[RenderableType]:
    """Nodes before and after, operator by operator."""
    table = new_table("graph", "before", "after", right=("before", "after"))
    ops = {**report.ops_before, **report.ops}
    for op in sorted(ops, key=lambda op: (-report.ops_before.get(op, 0), op)):
        table.add_row(op, str(report.ops_before.get(op, "-")), str(report.ops.get(op, "-")))
    table.add_row("nodes", str(report.nodes_before), str(report.nodes), style="bold")
    yield table
    yield ""


def _outcome(step: "PassReport") -> Text:
    if step.skipped:
        return Text("rolled back", style="bold red")
    return Text("declined" if step.declined else "yes" if step.modified else "no")


def rollbacks(report: "GraphReport") -> Iterator[RenderableType]:
    """The passes that the graph had to do without, and why."""
    for step in report.passes:
        if step.skipped:
            yield note(f"{step.name} was rolled back: {step.skipped}")
        elif step.declined:
            yield note(f"{step.name} declined: {step.declined}")


def pass_step(step: "PassStep") -> Iterator[str]:
    """One pass in lines of at most 80 columns, the whole graph before the first and after the last.

    A pass that was rolled back shows what it had made of the graph, and the traceback where it crashed.
    """
    if step.number == 1:
        yield from _operators("converted graph", step.ops_before)
    report, place = step.report, f"{step.number}/{step.total} {step.report.name}"
    before, after = sum(step.ops_before.values()), sum(step.ops_after.values())
    if report.skipped:
        yield from _wrapped(f"{place}: rolled back: {report.skipped}")
        yield from _wrapped(f"  it had made {before} -> {after} nodes: {_changes(step)}")
        yield from _traceback(step.error)
    elif report.declined:
        yield from _wrapped(f"{place}: declined: {report.declined}")
    elif report.modified:
        outputs = "bit-equal" if report.sqnr_db is None else f"SQNR {report.sqnr_db:.1f} dB"
        yield f"{place}: {before} -> {after} nodes, outputs {outputs}"
        yield from _wrapped(f"  {_changes(step)}")
    else:
        yield f"{place}: nothing to do"
    if step.number == step.total:
        yield from _operators("final graph", step.ops)


def _operators(title: str, ops: Mapping[str, int]) -> Iterator[str]:
    yield f"{title}: {sum(ops.values())} nodes"
    yield from _wrapped("  " + ", ".join(f"{op}{_GLUE}{count}" for op, count in ops.items()))


def _changes(step: "PassStep") -> str:
    """``Transpose 192 -> 1, Pad 4 -> 0``, in the order of the graph before."""
    counts = {op: (step.ops_before.get(op, 0), step.ops_after.get(op, 0)) for op in step.ops_before | step.ops_after}
    changed = [f"{op}{_GLUE}{old}{_GLUE}->{_GLUE}{new}" for op, (old, new) in counts.items() if old != new]
    return ", ".join(changed) or "the same operators"


def _traceback(error: Exception | None) -> Iterator[str]:
    """Of what a pass raised; a condition that does not hold needs none."""
    if error is not None and type(error).__name__ not in {"PreconditionError", "PostconditionError"}:
        for chunk in traceback.format_exception(error):
            yield from (f"  {line}" for line in chunk.splitlines())


def _wrapped(text: str) -> list[str]:
    lines = textwrap.wrap(text, _COLUMNS, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
    return [line.replace(_GLUE, " ") for line in lines]


def _reproduction(result: "BuildResult", reproduction: "Reproduction") -> Iterator[RenderableType]:
    if reproduction.passed:
        yield Text(f"built again with the same bytes: sha256 {reproduction.sha256}", style="green")
    else:
        yield Text("built again with OTHER bytes", style="bold red")
        yield f"  here:  sha256 {result.artifact.sha256}"
        yield f"  again: sha256 {reproduction.sha256}"
        yield note(f"  {reproduction.difference}")
