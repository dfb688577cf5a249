"""An int8 artifact and whether it pays."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.console import RenderableType

from mbexport_cli.render.parts import heading, new_table, note
from mbexport_cli.render.predict import unreadable

if TYPE_CHECKING:
    from mbexport.artifact import Artifact
    from mbexport.quantize.run import QuantizeReport
    from mbexport.quantize.verdict import Verdict

_MEGA = 1e6


def quantized(artifact: "Artifact", report: "QuantizeReport") -> Iterator[RenderableType]:
    yield from heading(artifact)
    yield f"made: {report.artifact}, calibrated on {report.calibrated_on} pictures"
    yield ""
    figures = ("p50 ms", "f32 p50 ms", "bf16 p50 ms", "times as fast", "94% interval")
    table = new_table("speed", *figures, right=figures)
    for each in report.verdicts:
        bf16 = "" if each.bf16_p50_s is None else _ms(each.bf16_p50_s)
        low, high = each.speedup_ci
        table.add_row(
            each.runtime,
            _ms(each.p50_s),
            _ms(each.float32_p50_s),
            bf16,
            f"{each.speedup:.2f}",
            f"{low:.2f} to {high:.2f}",
        )
    yield table
    yield ""
    yield from _answers(report.verdicts)
    yield ""
    columns = ("file MB", "f32 file MB", "memory MB", "f32 memory MB")
    table = new_table("size", *columns, right=columns)
    for each in report.verdicts:
        sizes = (each.model_bytes, each.float32_model_bytes, each.memory_bytes, each.float32_memory_bytes)
        table.add_row(each.runtime, *(f"{size / _MEGA:.1f}" for size in sizes))
    yield table
    yield ""
    for each in report.verdicts:
        yield f"{each.runtime}: {'go' if each.go else 'no-go'}: {each.reason}"
    for text in report.notes:
        yield note(text)
    yield from unreadable(report.failed)


def _answers(verdicts: "list[Verdict]") -> Iterator[RenderableType]:
    figures = ("top-1 lost", "95% interval", "expected", "top-5 lost", "same %", "SQNR dB")
    table = new_table("answers", *figures, right=figures)
    for each in verdicts:
        table.add_row(
            each.runtime,
            _points(each.top1_drop),
            _range(each.top1_drop_ci),
            _points(each.expected_drop),
            _points(each.top5_drop),
            _points(each.agreement),
            "" if each.sqnr_db is None else f"{each.sqnr_db:.1f}",
        )
    yield table
    yield f"on {verdicts[0].pictures} pictures that did not calibrate it; points of 100"
    yield "expected: by float32's own probabilities of the classes that came instead"


def _ms(time_s: float) -> str:
    return f"{time_s * 1e3:.3f}"


def _points(share: float | None) -> str:
    return "" if share is None else f"{share * 100:.2f}"


def _range(ends: tuple[float, float] | None) -> str:
    return "" if ends is None else f"{ends[0] * 100:.1f} to {ends[1] * 100:.1f}"
