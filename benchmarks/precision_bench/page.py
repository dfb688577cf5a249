"""The tables in Markdown, and where they go in a page."""

from __future__ import annotations

import importlib.metadata
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from mbexport import hardware, serde
from precision_bench.accuracy import BF16, TARGETS
from precision_bench.bars import bars, distance, judged, points, timed, times
from precision_bench.networks import ALL
from precision_bench.timing import FLOAT32
from precision_bench.variants import FULL, in_words

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from precision_bench.records import Found, Judged

NONE = "-"
_VECTORS = ("avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "amx_bf16")


def sections(found: Found) -> dict[str, str]:
    """Name -> text, of each part that has something to show."""
    makers: dict[str, Callable[[Found], Iterator[str]]] = {
        "machine": _machine,
        "bars": _bars,
        "ingredients": _ingredients,
        "ablation": _ablation,
        "one-file": _one_file,
        "times": _times,
        "distances": _distances,
        "dithered": _dithered,
        "sensitivity": _sensitivity,
        "others": _others,
        "channels": _channels,
    }
    return {name: "\n".join(lines).rstrip() + "\n" for name, make in makers.items() if (lines := list(make(found)))}


def has_markers(page: Path, machine: str) -> bool:
    """Whether the page has tables of another machine, by the word in their markers."""
    return f" {machine} -->" in page.read_text()


def put_into(page: Path, written: dict[str, str], machine: str | None = None) -> None:
    """Replace what stands between the markers of each section; a section without markers is left out.

    ``machine`` is the word in the markers of another machine's tables.
    """
    text = page.read_text()
    for section, content in written.items():
        name = re.escape(f"{section} {machine}" if machine else section)
        marked = rf"(<!-- precision {name} -->\n).*?(<!-- /precision {name} -->)"
        text = re.sub(marked, _filled(content), text, count=1, flags=re.DOTALL)
    serde.write_atomic(page, text.encode())


def _filled(content: str) -> Callable[[re.Match[str]], str]:
    return lambda match: f"{match[1]}{content}{match[2]}"


def _table(head: str, rows: Iterable[Iterable[str]], texts: int = 1) -> Iterator[str]:
    """``head`` names the columns; the first ``texts`` are words, and the others are figures."""
    columns = head.split("|")
    yield "| " + " | ".join(columns) + " |"
    yield "|" + "---|" * texts + "---:|" * (len(columns) - texts)
    yield from (f"| {' | '.join(row)} |" for row in rows)


def _machine(found: Found) -> Iterator[str]:
    machine = hardware.detect()
    vectors = ", ".join(name for name in machine.instruction_sets if name in _VECTORS)
    shared = "shared virtual" if machine.virtual_machine else "physical"
    packages = ("mbexport", "onnx", "onnxruntime-gpu", "openvino")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)
    yield (
        f"{machine.cpu} (family {machine.cpu_family}, model {machine.cpu_model}; {vectors}), {machine.logical_cores} "
        f"{shared} cores; {versions}; {datetime.now(UTC).date().isoformat()}."
    )
    counts = sorted({one.calibrated_on for one in (*found.ablation, *found.dithered)})
    if counts:
        yield f"Each half was calibrated on {' or '.join(map(str, counts))} photographs."
    if found.taken_s:
        parts = ", ".join(f"{part} {taken_s / 60:.0f} min" for part, taken_s in found.taken_s.items())
        yield f"The parts took: {parts}."


def _bars(found: Found) -> Iterator[str]:
    rows = [
        (bar.network, bar.target, bar.wanted, bar.found or "not measured", "yes" if bar.met else "**no**")
        for bar in bars(found)
    ]
    yield from _table("network|engine|wanted|found|met", rows, texts=3)


def _figures(one: Judged) -> tuple[str, ...]:
    change = one.change
    assert change.agreement is not None
    assert change.expected_drop is not None
    return (
        points(one),
        f"{change.agreement:.1%}",
        f"{change.expected_drop * 100:.2f}",
        f"{one.divergence:.4f}",
        NONE if change.sqnr_db is None else f"{change.sqnr_db:.1f}",
    )


_FIGURES, _TAKEN = "top-1, points|agreement|expected loss|divergence|SQNR, dB", "times as fast"


def _ingredients(found: Found) -> Iterator[str]:
    """Agreement and divergence of every recipe, side by side."""
    places = [
        (net.name, target)
        for net in ALL
        for target in reversed(TARGETS.values())
        if judged(found.ablation, net.name, target, FULL)
    ]
    recipes = [name for name in dict.fromkeys(one.variant for one in found.ablation) if "in float32" not in name]
    rows = []
    for recipe in recipes:
        ones = [judged(found.ablation, *place, recipe) for place in places]
        rows.append((recipe, *(f"{one.change.agreement:.1%}; {one.divergence:.3f}" if one else NONE for one in ones)))
    yield from _table("|".join(["recipe", *(", ".join(place) for place in places)]), rows) if rows else ()


def _ablation(found: Found) -> Iterator[str]:
    for network, form, target in dict.fromkeys((one.network, one.form, one.target) for one in found.ablation):
        chosen = [one for one in found.ablation if (one.network, one.form, one.target) == (network, form, target)]
        if len(chosen) == 1:  # the foreign engine's
            continue
        islands = in_words(found.islands[f"{network}/{form}"])
        yield f"{network} on {target}; float32 {_float32(chosen[0])}; chosen to stay in float32: {islands}."
        yield ""
        rows = ((one.variant, *_figures(one), _taken(found, one)) for one in chosen)
        yield from _table(f"recipe|{_FIGURES}|{_TAKEN}", rows)
        yield ""


def _float32(one: Judged) -> str:
    """Top-1 in float32."""
    return f"{(one.change.top1 or 0) + (one.change.top1_drop or 0):.2%}"


def _taken(found: Found, one: Judged) -> str:
    row = timed(found.timed, one.network, one.target, one.variant)
    return NONE if row is None else times(row)


def _one_file(found: Found) -> Iterator[str]:
    rows = []
    for one in found.ablation:
        if one.variant == FULL:
            foreign = timed(found.timed, one.network, one.target, f"{FULL}, the file for {one.form}")
            taken = times(foreign) if foreign else _taken(found, one)
            rows.append((f"{one.network}, file for {one.form}", one.target, *_figures(one), taken))
    yield from _table(f"file|runs on|{_FIGURES}|{_TAKEN}", rows, texts=2) if rows else ()


def _times(found: Found) -> Iterator[str]:
    rows = []
    for net in ALL:
        for target in TARGETS.values():
            float32, bf16, int8 = (timed(found.timed, net.name, target, row) for row in (FLOAT32, BF16, FULL))
            if float32 and int8:
                free = timed(found.by_default, net.name, target, FULL)
                p50 = (f"{float32.p50_s * 1e3:.2f}", times(bf16) if bf16 else NONE, times(int8), int8.precision)
                rows.append((net.name, target, *p50, times(free) if free else NONE))
    head = "network|engine|float32, ms|bf16|int8|read back|int8, default options"
    yield from _table(head, rows, texts=2) if rows else ()


def _distances(found: Found) -> Iterator[str]:
    rows = []
    for net in ALL:
        for target in TARGETS.values():
            ours = distance(found, net.name, "int8", target)
            if ours is None:
                continue
            others = [distance(found, net.name, what, TARGETS["openvino"]) for what in ("bf16", "nncf")]
            predicted = distance(found, net.name, "bf16 predicted", "")
            rows.append(
                (
                    net.name,
                    target,
                    _pair(ours),
                    _pair(others[0]),
                    f"{predicted.reference_db:.1f}" if predicted else NONE,
                    _pair(others[1]),
                )
            )
    yield from (_table("network|engine|int8|bf16|bf16 predicted|NNCF on OpenVINO", rows, texts=2) if rows else ())


def _pair(one: object) -> str:
    """SQNR on reference pictures, and on photographs."""
    reference_db, photographs_db = getattr(one, "reference_db", None), getattr(one, "photographs_db", None)
    if reference_db is None:
        return NONE
    return f"{reference_db:.1f}; {NONE if photographs_db is None else f'{photographs_db:.1f}'}"


def _dithered(found: Found) -> Iterator[str]:
    rows = [(one.network, one.target, _float32(one), *_figures(one)) for one in found.dithered]
    yield from _table(f"network|engine|float32|{_FIGURES}", rows, texts=2) if rows else ()


def _sensitivity(found: Found) -> Iterator[str]:
    for form in dict.fromkeys(one.form for one in found.sensitivity):
        rows = [
            (one.block, f"{one.gain_db:+.2f}", f"{one.ratio:.2f} [{one.ratio_ci[0]:.2f}, {one.ratio_ci[1]:.2f}]")
            for one in found.sensitivity
            if one.form == form
        ]
        yield f"On {TARGETS[form]}:"
        yield ""
        yield from _table("block in float32|SQNR, dB|time over everything in 8 bits", rows)
        yield ""


def _others(found: Found) -> Iterator[str]:
    rows = []
    for network, target in dict.fromkeys((one.network, one.target) for one in found.others):
        ours = judged(found.ablation, network, target, FULL)
        theirs = [one for one in found.others if (one.network, one.target) == (network, target)]
        rows += [(network, one.variant, *_figures(one), _taken(found, one)) for one in [ours, *theirs] if one]
    yield from _table(f"network|on openvino:cpu|{_FIGURES}|{_TAKEN}", rows, texts=2) if rows else ()


def _channels(found: Found) -> Iterator[str]:
    taken = {(one.kernel, one.channels): one.seconds for one in found.channels}
    kernels = sorted({kernel for kernel, _ in taken})
    rows = [
        (str(count), *(f"{taken[kernel, count] * 1e6:.0f}" if (kernel, count) in taken else NONE for kernel in kernels))
        for count in sorted({count for _, count in taken})
    ]
    heads = (f"{kernel}x{kernel}, microseconds" for kernel in kernels)
    yield from _table("|".join(["channels", *heads]), rows, texts=0) if rows else ()
