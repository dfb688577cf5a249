"""How often a network is right."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.console import RenderableType

from mbexport_cli.render.parts import heading, new_table, note
from mbexport_cli.render.predict import called, percent, unreadable, which_output

if TYPE_CHECKING:
    from mbexport.artifact import Artifact
    from mbexport.evaluate import EvaluationReport

SHOWN = 20
"""How many disagreements are written out; --json has them all."""


def evaluated(artifact: "Artifact", report: "EvaluationReport") -> Iterator[RenderableType]:
    yield from heading(artifact)
    yield from which_output(report.output, report.other_outputs)
    figures = ("top-1 %", "95% interval", "top-5 %", "95% interval ")
    table = new_table("accuracy", "precision", *figures, right=figures)
    for row in report.rows:
        shares = (percent(row.top1), _interval(row.top1_ci), percent(row.top5), _interval(row.top5_ci))
        table.add_row(row.runtime, row.precision, *shares)
    if report.published_top1 is not None:
        table.add_row("published", "f32", percent(report.published_top1), "", "", "")
    yield table
    yield from _beside_float32(report)
    if report.published_top1 is not None:
        yield f"published: on ImageNet's 50,000 validation pictures ({report.published_source})"
    if report.note is not None:
        yield note(report.note)
    yield f"{report.images} pictures in {report.seconds:.1f} s, {report.images_per_s:.0f} a second"
    yield ""
    yield from _disagreements(report)
    yield from unreadable(report.failed)


def _beside_float32(report: "EvaluationReport") -> Iterator[RenderableType]:
    """What the artifact that a narrower one was made from answers to the same pictures."""
    found = [
        (row.runtime, percent(row.float32_top1), percent(row.agreement), _interval(row.agreement_ci))
        for row in report.rows
        if row.float32_top1 is not None and row.agreement is not None and row.agreement_ci is not None
    ]
    if not found:
        return
    figures = ("top-1 %", "same class %", "95% interval")
    table = new_table("float32 beside it", *figures, right=figures)
    for cells in found:
        table.add_row(*cells)
    yield ""
    yield table


def _disagreements(report: "EvaluationReport") -> Iterator[RenderableType]:
    if len(report.rows) > 1:
        yield f"the runtimes' most probable classes differ on {len(report.disagreements)} pictures"
    for each in report.disagreements[:SHOWN]:
        answers = ", ".join(f"{answer.runtime} {called(answer)}" for answer in each.top1)
        yield f"  {each.path}: {answers} (right: {called(each.expected)})"
    if len(report.disagreements) > SHOWN:
        yield f"  and {len(report.disagreements) - SHOWN} more, which --json lists"


def _interval(ends: tuple[float, float]) -> str:
    return f"{ends[0] * 100:.1f} to {ends[1] * 100:.1f}"
