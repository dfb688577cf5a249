"""A pipeline file, its plan, and what came of it."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import RenderableType

from mbexport_cli.render.parts import new_table, note, verdict

if TYPE_CHECKING:
    from mbexport.pipelines.file import Pipeline
    from mbexport.pipelines.plan import PipelinePlan
    from mbexport.pipelines.run import JudgedCell, PipelineReport


def checked(pipeline: "Pipeline") -> Iterator[RenderableType]:
    for wanted in pipeline.cells:
        yield wanted.cell.name
    yield f"{pipeline.path}: {len(pipeline.cells)} cells, {len(pipeline.outputs)} outputs; no faults"


def planned(plan: "PipelinePlan") -> Iterator[RenderableType]:
    table = new_table("cell", "build", "validate", "measure", right=("measure",))
    for cell in plan.cells:
        table.add_row(cell.name, cell.build, cell.validate, f"{cell.rows} of {cell.rows_asked}")
    yield table
    yield ""
    for cell in plan.cells:
        if cell.gates:
            yield f"{cell.name}: {', '.join(cell.gates)}"
    for output in plan.outputs:
        yield f"{output.kind} {output.path}: {', '.join(output.cells)}"
        if output.publish is not None:
            yield f"publish {output.publish}"
    yield f"on {plan.machine}: {', '.join(plan.targets)}"


def piped(report: "PipelineReport", written: Sequence[Path]) -> Iterator[RenderableType]:
    table = new_table("cell", "result", "gates", "built s", right=("gates", "built s"))
    for cell in report.cells:
        word = verdict("passed" if cell.passed else "FAILED")
        held = sum(gate.passed is True for gate in cell.gates)
        table.add_row(cell.name, word, f"{held} of {len(cell.gates)}", _built(cell))
    yield table
    yield ""
    for cell in report.cells:
        for text in filter(None, (*cell.result.notes, cell.result.error, cell.error)):
            yield note(f"{cell.name}: {text}")
        for gate in cell.gates:
            if gate.passed is not True:
                state = "failed" if gate.passed is False else "not judged"
                yield note(f"{cell.name}, {gate.text}: {state}: {gate.reason}")
    for output in report.outputs:
        yield f"{output.kind}: {output.path}"
        if output.published is not None:
            yield f"published: {output.published}"
        if output.reason is not None:
            yield note(f"{output.path}: {output.reason}")
    for path in written:
        yield f"report: {path}"


def _built(cell: "JudgedCell") -> str:
    if cell.result.cached:
        return "cached"
    return "" if cell.result.build_s is None else f"{cell.result.build_s:.1f}"
