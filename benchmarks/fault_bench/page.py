"""The table fault x network, and the bars."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fault_bench.suite import Outcome

NAMED_BAR = 0.95


def page(found: Sequence[Outcome]) -> Iterator[str]:
    """Markdown lines: the weakest effect in dB, how many of the visible faults were caught, how many rightly named."""
    cells = list(dict.fromkeys(outcome.cell for outcome in found))
    yield "| fault | " + " | ".join(cells) + " |"
    yield "|---|" + "---|" * len(cells)
    for fault in dict.fromkeys(outcome.fault for outcome in found):
        chosen = [[one for one in found if (one.fault, one.cell) == (fault, cell)] for cell in cells]
        yield f"| {fault} | " + " | ".join(map(_entry, chosen)) + " |"
    yield ""
    yield from bars(found)


def _entry(outcomes: Sequence[Outcome]) -> str:
    if not outcomes:
        return "-"
    visible = [one for one in outcomes if one.is_visible]
    effects = [one.effect_db for one in outcomes if one.effect_db is not None]
    weakest = ("equal" if max(effects) > 900 else f"{max(effects):.0f} dB") if effects else "no number"
    caught, named = (sum(getattr(one, key) for one in visible) for key in ("caught", "is_named"))
    return f"{weakest}; {caught}/{len(visible)}, {named}/{len(visible)}"


def bars(found: Sequence[Outcome]) -> Iterator[str]:
    """What was caught and named in all, and each exception by name."""
    visible = [one for one in found if one.is_visible]
    caught = [one for one in visible if one.caught]
    named = [one for one in caught if one.is_named]
    yield f"- visible faults caught: {len(caught)} of {len(visible)} (bar: all)"
    share = len(named) / max(len(caught), 1)
    yield f"- rightly named: {len(named)} of {len(caught)}, {share:.1%} (bar: {NAMED_BAR:.0%})"
    hidden = [one for one in found if not one.is_visible]
    yield f"- without an effect above the limit: {len(hidden)}, of which {sum(one.caught for one in hidden)} failed"
    for one in [*(one for one in visible if not one.caught), *(one for one in caught if not one.is_named)]:
        what = "not caught" if not one.caught else f"named {one.named}, wanted {' or '.join(one.culprits)}"
        yield f"  - {one.fault}, {one.cell} seed {one.seed}, {one.runtime}: {what}"
    for one in hidden:
        effect = "bit-equal" if one.effect_db and one.effect_db > 900 else f"{one.effect_db:.1f} dB"
        yield f"  - no effect: {one.fault}, {one.cell} seed {one.seed}, {one.runtime}: {effect}"


def met(found: Sequence[Outcome]) -> bool:
    visible = [one for one in found if one.is_visible]
    caught = [one for one in visible if one.caught]
    return len(caught) == len(visible) and sum(one.is_named for one in caught) >= NAMED_BAR * len(caught)
