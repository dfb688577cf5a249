"""What became of merged profiles."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.console import RenderableType
from rich.text import Text

from mbexport_cli.render.parts import new_table, note

if TYPE_CHECKING:
    from mbexport.bench.merged import MergeReport

_COUNTS = ("added", "replaced", "kept", "not taken")


def merged(report: "MergeReport") -> Iterator[RenderableType]:
    """A table of rows for each machine, then the sum. Names have no limit, so they stand last."""
    for hardware in dict.fromkeys(profile.hardware for profile in report.profiles):
        yield Text(hardware, style="bold")
        table = new_table(*_COUNTS, "profile", right=_COUNTS)
        for profile in report.profiles:
            if profile.hardware == hardware:
                counts = (profile.rows_added, profile.rows_replaced, profile.rows_kept, profile.rows_not_taken)
                table.add_row(*map(str, counts), profile.artifact)
        yield table
        yield ""
    if report.rows_not_taken or report.tuned_not_taken:
        yield note("not taken: what stands there is later, or of a source that was named later")
    yield (
        f"rows:     {report.rows_added} added, {report.rows_replaced} replaced, {report.rows_kept} kept,"
        f" {report.rows_not_taken} not taken"
    )
    tuned = (report.tuned_added, report.tuned_replaced, report.tuned_kept, report.tuned_not_taken)
    if any(tuned):
        yield "tuned:    " + ", ".join(f"{count} {word}" for count, word in zip(tuned, _COUNTS, strict=True))
    yield f"profiles: {len(report.written)} written, {len(report.profiles) - len(report.written)} as they were"
    for path in report.tables:
        yield f"table:    {path}"
