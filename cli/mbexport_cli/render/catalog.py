"""Published networks, and what they come to."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from mbexport.spec import size_text
from mbexport_cli.render.parts import new_table, note

if TYPE_CHECKING:
    from mbexport.catalog import Info, Published


def catalogue(entries: "Iterable[Published]") -> Iterator[RenderableType]:
    """The published networks with their published figures, then timm's names for some of them."""
    entries = tuple(entries)
    figures = ("params M", "MACs M", "top-1 %")
    table = new_table("model", *figures, right=figures)
    names = new_table("model", "timm's name")
    for entry in entries:
        parameters = f"{entry.parameters_millions:.{entry.parameters_decimals}f}"
        table.add_row(entry.name, parameters, str(entry.macs_millions), f"{entry.top1 * 100:.1f}")
        if entry.timm is not None:
            names.add_row(entry.name, entry.timm.name)
    yield table
    yield note("as published; `mbexport info` says which figures hold")
    yield ""
    yield names


def info(about: "Info") -> Iterator[RenderableType]:
    yield Text(about.spec.slug, style="bold")
    rows = {
        "parameters": about.parameters,
        "trainable": about.trainable_parameters,
        "without batch norm": about.parameters_without_batch_norm,
        "multiply-accumulates": about.macs,
    }
    for name, value in rows.items():
        yield f"  {name:<20} {value:>15,}"
    if about.spec.is_dynamic:
        yield f"  multiply-accumulates are those at {size_text(about.macs_at)}; parameters do not depend on the size"
    if about.published is None:
        yield "  no figures are published for this network"
    else:
        yield f"  published: {about.published.parameters_millions} M parameters, {about.published.macs_millions} M MACs"
        yield f"    ({about.published.source})"
    yield from (note(line) for line in about.disagreements)


def checkpoints(abouts: "Sequence[Info]") -> Iterator[RenderableType]:
    """Computed beside published, and then what does not hold."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    table.add_column("checkpoint", no_wrap=True)
    for header in ("params M", "published", "MACs M", "published"):
        table.add_column(header, justify="right", no_wrap=True)
    for about in abouts:
        if about.published is not None:
            bare, published = about.parameters_without_batch_norm / 1e6, about.published
            counts = (f"{bare:.2f}", str(published.parameters_millions), f"{about.macs / 1e6:.1f}")
            table.add_row(about.spec.slug, *counts, str(published.macs_millions))
    yield table
    yield "parameters without batch norm, as the published figures count them"
    yield ""
    for about in abouts:
        yield from (note(f"{about.spec.slug}: {line}") for line in about.disagreements)
