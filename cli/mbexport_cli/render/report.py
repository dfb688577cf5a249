"""What a written report page holds."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.console import RenderableType
from rich.text import Text

if TYPE_CHECKING:
    from mbexport.analysis.report import Written


def reported(written: "Written") -> Iterator[RenderableType]:
    yield Text(written.hardware, style="bold")
    yield f"networks: {written.networks}, rows: {written.rows}, {written.origin}"
    yield f"report:   {written.report}"
