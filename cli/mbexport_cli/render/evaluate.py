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
    """What float32 answers to the same pictures, beside a narrower precision."""
    figures = ("float32 top-1 %", "change, points", "same class %")
    table = new_table("beside float32", *figures, right=figures)
    for row in report.rows:
        if row.float32_top1 is None or row.top1_drop is None or row.agreement is None:
            continue
        change = f"{-row.top1_drop * 100:+.2f} {_ends(row.top1_drop_ci, -100, '+.1f')}"
        same = f"{percent(row.agreement)} {_ends(row.agreement_ci, 100, '.1f')}"
        table.add_row(row.runtime, percent(row.float32_top1), change, same)
    if table.row_count:
        yield ""
        yield table


def _ends(interval: tuple[float, float] | None, factor: int, form: str) -> str:
    assert interval is not None
    low, high = sorted(end * factor for end in interval)
    return f"[{low:{form}}, {high:{form}}]"


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
