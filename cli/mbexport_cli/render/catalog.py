"""Published networks, and what they come to."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich.console import RenderableType
from rich.text import Text

from mbexport.pretrained import V2_ALPHAS, V2_HOLES, V2_SIDES_PX
from mbexport.published import PIXEL1
from mbexport.spec import size_text
from mbexport_cli.render.parts import new_table, note

if TYPE_CHECKING:
    from rich.table import Table

    from mbexport.catalog import Info
    from mbexport.published import Accuracy, Published, TimmPublished
    from mbexport.spec import ModelSpec


def catalogue(
    abouts: "Sequence[Info]", others: "Sequence[Info]", holes: "Sequence[ModelSpec]"
) -> Iterator[RenderableType]:
    """Published figures, computed ones beside them, timm's figures, and the grid of V2's weights with its holes."""
    entries = [about.published for about in abouts if about.published is not None]
    yield _published_figures(entries)
    yield "as published, all in float32"
    yield f"  Pixel 1: {PIXEL1}"
    for source in dict.fromkeys(entry.source for entry in entries):
        yield f"  {_families(entries, source)}: {source}"
    yield ""
    yield from checkpoints(abouts)
    yield ""
    yield from _timm(entries)
    yield ""
    yield _v2_weights(entries)
    yield "ImageNet weights of V2 by alpha and resolution, with the published top-1 %;"
    yield "weights: there are, without published figures; none: there are no weights"
    yield "V3's are for alpha 0.75 and 1.0, and minimalistic 1.0, trained at 224 only"
    yield ""
    yield "with weights, but without published figures:"
    yield from (f"  {about.spec.slug}" for about in others)
    yield f"holes, which nobody published: {', '.join(spec.slug for spec in holes)}"


def _published_figures(entries: "Sequence[Published]") -> "Table":
    figures = ("params\nM", "MACs\nM", "top-1\n%", "top-5\n%", "Pixel 1\nms")
    table = new_table("model", *figures, right=figures)
    for entry in entries:
        counts = (_parameters(entry), str(entry.macs_millions))
        table.add_row(entry.name, *counts, _percent(entry.top1), _percent(entry.top5), f"{entry.pixel1_s * 1e3:.1f}")
    return table


def _families(entries: "Sequence[Published]", source: str) -> str:
    """``V3`` or ``V2``: whose figures the source has."""
    found = dict.fromkeys("V3" if entry.spec.is_v3 else "V2" for entry in entries if entry.source == source)
    return ", ".join(found)


def _timm(entries: "Sequence[Published]") -> Iterator[RenderableType]:
    names = new_table("model", "timm's name")
    figures = ("params M", "top-1 %", "top-5 %")
    table = new_table("timm's name", *figures, right=figures)
    ports = [(entry.name, entry.timm) for entry in entries if entry.timm is not None]
    for name, port in ports:
        names.add_row(name, port.name)
        table.add_row(port.name, f"{port.parameters_millions:.2f}", _percent(port.top1, 2), _percent(port.top5, 2))
    yield names
    yield ""
    yield table
    for line in dict.fromkeys(f"{p.source}; crop {p.crop}, {p.interpolation}, {p.side_px}" for _, p in ports):
        yield f"source: {line}"


def _v2_weights(entries: "Sequence[Published]") -> "Table":
    top1 = {(entry.spec.alpha, entry.spec.height): entry.top1 for entry in entries if not entry.spec.is_v3}
    sides = [str(side) for side in V2_SIDES_PX]
    table = new_table("V2 alpha", *sides, right=sides)
    for alpha in V2_ALPHAS:
        cells = [
            "none" if (alpha, side) in V2_HOLES else _percent(top1.get((alpha, side)), missing="weights")
            for side in V2_SIDES_PX
        ]
        table.add_row(str(alpha), *cells)
    return table


def info(about: "Info") -> Iterator[RenderableType]:
    """What is computed, what was published by whom, and where they disagree."""
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
        yield ""
        yield from _published(about.published)
    yield ""
    if about.imagenet is None:
        yield "no ImageNet weights"
        yield f"  {about.no_imagenet}"
    else:
        yield "ImageNet weights (--weights imagenet)"
        yield f"  {about.imagenet.file}"
        if about.spec.size != (about.imagenet.side_px, about.imagenet.side_px):
            yield note(f"  trained at {about.imagenet.side_px} pixels, not at {about.spec.resolution}")
    yield from (note(line) for line in about.disagreements)


def _published(entry: "Published") -> Iterator[RenderableType]:
    """Each source with what it says."""
    yield "published, in float32"
    yield f"  {entry.source}"
    yield f"    {_parameters(entry)} M parameters, {entry.macs_millions} M MACs, {_accuracy(entry)}"
    yield f"    {entry.pixel1_s * 1e3:.1f} ms on {PIXEL1}"
    for other in entry.elsewhere:
        yield f"  {other.source}"
        yield f"    {_accuracy(other)}"
    if entry.timm is not None:
        port = entry.timm
        yield f"  {port.source}"
        yield f"    {port.name}, {port.parameters_millions:.2f} M parameters"
        yield f"    {_accuracy(port)} at {port.side_px}, {port.interpolation}, crop {port.crop}"


def _accuracy(figures: "Published | Accuracy | TimmPublished") -> str:
    """With the digits that were published."""
    top5 = "" if figures.top5 is None else f", top-5 {figures.top5 * 100:.5g} %"
    return f"top-1 {figures.top1 * 100:.5g} %{top5}"


def checkpoints(abouts: "Sequence[Info]") -> Iterator[RenderableType]:
    """Computed beside published, and then what does not hold."""
    table = new_table("checkpoint")
    for header in ("params M", "published", "MACs M", "published"):
        table.add_column(header, justify="right", no_wrap=True)
    for about in abouts:
        if about.published is not None:
            counts = (f"{about.parameters_without_batch_norm / 1e6:.2f}", _parameters(about.published))
            table.add_row(about.spec.slug, *counts, f"{about.macs / 1e6:.1f}", str(about.published.macs_millions))
    yield table
    yield "computed here beside published; parameters without batch norm, as published"
    yield ""
    for about in abouts:
        yield from (note(f"{about.spec.slug}: {line}") for line in about.disagreements)


def _parameters(entry: "Published") -> str:
    return f"{entry.parameters_millions:.{entry.parameters_decimals}f}"


def _percent(share: float | None, decimals: int = 1, missing: str = "-") -> str:
    return missing if share is None else f"{share * 100:.{decimals}f}"
