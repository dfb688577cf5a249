"""Which network fits a budget, and what one that was not measured may take."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich.console import RenderableType
from rich.text import Text

from mbexport.spec import size_text
from mbexport_cli.render.parts import milliseconds, new_table, note

if TYPE_CHECKING:
    from mbexport.analysis.predict import LatencyPrediction, PredictedRow, RefusedRow
    from mbexport.analysis.recommend import Recommendation, RecommendRow, Unanswered

_MOST_ROWS = 5
"""Of each table; the rest are counted, and stand in the JSON document."""
_ELSEWHERE = "*"
"""Behind a top-1 that was counted in another precision than the row computes in."""


def recommended(answer: "Recommendation") -> Iterator[RenderableType]:
    """The answer, then what comes near it, then what is not known."""
    yield from _machine(answer.hardware, this_machine=answer.this_machine)
    yield _question(answer)
    yield ""
    yield from _best(answer)
    yield from _networks("runners-up", answer.runners_up, answer)
    beyond = "more accurate, over budget" if answer.best else "over budget, nearest first"
    yield from _networks(beyond, answer.over_budget, answer)
    if answer.best is None:
        yield from _networks("in budget, less accurate", answer.less_accurate, answer)
    yield from _counted_elsewhere(answer)
    yield from _unknown(answer)
    yield from _mixed(answer)
    yield from _unanswered(answer)
    yield from _not_measured(answer)


def latency_predicted(answer: "LatencyPrediction") -> Iterator[RenderableType]:
    """Predictions, how good they are, and what they rest on."""
    yield Text(answer.network, style="bold")
    size = f" at {size_text(answer.size)}" if answer.spec.is_dynamic else ""
    yield note(f"{answer.kind}; {answer.macs / 1e6:.1f} M multiply-accumulates{size}, batch 1")
    yield from _machine(answer.hardware, this_machine=answer.this_machine)
    yield ""
    yield _settings_table(
        ("predicted", "p50 ms", "90% interval"),
        [(row, (milliseconds(row.predicted_p50_s), _interval(row.predicted_interval_s))) for row in answer.rows],
    )
    beyond = dict.fromkeys(reason for row in answer.rows for reason in row.extrapolation)
    if beyond:
        yield note("extrapolation, so the intervals may not hold:")
        yield from (f"  {reason}" for reason in beyond)
    yield ""
    yield _settings_table(
        ("checked", "networks", "median error", "held"),
        [(row, (str(row.networks), f"{row.loo_median_error:.1%}", f"{row.loo_coverage:.0%}")) for row in answer.rows],
    )
    yield "each measured network predicted from the others; 90% intervals should hold 90%"
    yield from _measured_beside(answer.rows)
    yield from _refused(answer.refused)


def _measured_beside(rows: "Sequence[PredictedRow]") -> Iterator[RenderableType]:
    found = [(row, row.measured) for row in rows if row.measured is not None]
    if not found:
        return
    yield ""
    yield _settings_table(
        ("measured", "p50 ms", "95% interval", "predicted is"),
        [
            (row, (milliseconds(own.p50_s), _interval(own.p50_ci_s), f"{row.predicted_p50_s / own.p50_s - 1:+.1%}"))
            for row, own in found
        ],
    )
    yield note("it was measured: take these figures; the predictions were made without them")


def _refused(refused: "Sequence[RefusedRow]") -> Iterator[RenderableType]:
    for reason in dict.fromkeys(row.reason for row in refused):
        yield ""
        yield note(f"no prediction: {reason}")
        for row in refused:
            if row.reason == reason:
                yield f"  {row.runtime} {_mode(row)}, {_threads(row.threads)}"


def _settings_table(headers: Sequence[str], rows: "Sequence[tuple[PredictedRow, Sequence[str]]]") -> RenderableType:
    """Figures by runtime, mode and threads."""
    title, *figures = headers
    table = new_table(title, "mode", "threads", *figures, right=("threads", *figures))
    for row, cells in rows:
        table.add_row(row.runtime, _mode(row), str(row.threads), *cells)
    return table


def _machine(slug: str, *, this_machine: bool) -> Iterator[RenderableType]:
    if this_machine:
        yield f"on {slug}, this machine"
    else:
        yield note(f"on {slug}, which is not this machine")


def _question(answer: "Recommendation") -> str:
    asked = answer.settings
    settings = [
        " or ".join(asked.runtimes) if asked.runtimes else "any runtime",
        asked.mode or "any mode",
        *([" or ".join(asked.precisions)] if asked.precisions else []),
        "any threads" if asked.threads is None else _threads(asked.threads),
        f"batch {asked.batch}",
    ]
    least = "" if answer.min_top1 is None else f" and top-1 of {_percent(answer.min_top1)} % or more"
    return f"{answer.percentile} within {answer.budget_s * 1e3:g} ms{least}; {', '.join(settings)}"


def _best(answer: "Recommendation") -> Iterator[RenderableType]:
    best = answer.best
    if best is None:
        known = " of known accuracy" if any(row.fits for row in answer.unknown_accuracy) else ""
        yield Text(f"no measured network{known} does that", style="bold red")
        yield ""
        return
    yield Text(best.artifact, style="bold green")
    yield from _accuracy(best, answer.min_top1)
    interval = "no interval is known" if best.ci_s is None else f"95% interval {_interval(best.ci_s)}"
    yield f"  {answer.percentile} {milliseconds(best.latency_s)} ms, {interval}"
    yield f"  with {_how(best)}"
    if best.unusual:
        yield f"  and {best.unusual}"
    yield f"  {best.profile}"
    if best.surely is False:
        yield note("  not surely: the interval reaches beyond the budget")
    if best.verdict != "ok":
        yield from (note(f"  {best.verdict}: {reason}") for reason in best.reasons)
    if _is_counted_elsewhere(best):
        yield note(f"  this row computes in {best.precision}, not in {_top1_precision(best)} as for its top-1")
    yield ""


def _accuracy(best: "RecommendRow", least: float | None) -> Iterator[RenderableType]:
    """Top-1 and its source."""
    if best.top1_ci is None:
        yield f"  top-1 {_percent(best.top1)} %, published for ImageNet's weights in float32"
        yield f"  source: {best.top1_source}"
        return
    ends = " to ".join(f"{end * 100:.1f}" for end in best.top1_ci)
    yield f"  top-1 {_percent(best.top1)} %, {best.top1_source}, 95% interval {ends} %"
    if least is not None and best.top1_ci[0] < least:
        yield note(f"  not surely {_percent(least)} % or more: the interval reaches below")


def _mixed(answer: "Recommendation") -> Iterator[RenderableType]:
    """A warning where shares of different pictures were ranked."""
    best = [] if answer.best is None else [answer.best]
    ranked = [*best, *answer.runners_up, *answer.over_budget, *answer.less_accurate]
    measured = [row for row in ranked if row.top1_ci is not None]
    for artifact, source in dict.fromkeys((row.artifact, row.top1_source) for row in measured if row not in best):
        yield f"top-1 of {artifact} was {source}"
    if 0 < len(measured) < len(ranked):
        yield note("other top-1 are of ImageNet's pictures: they compare only on the same task")


def _networks(title: str, rows: "Sequence[RecommendRow]", answer: "Recommendation") -> Iterator[RenderableType]:
    if not rows:
        return
    figures = ("top-1\n%", f"{answer.percentile} ms\n95% interval")
    table = new_table(f"{title}\nfastest settings", *figures, "", right=figures)
    for row in rows[:_MOST_ROWS]:
        interval = "-" if row.ci_s is None else _interval(row.ci_s)
        table.add_row(
            f"{row.artifact}\n{_how(row)}",
            _percent(row.top1) + (_ELSEWHERE if _is_counted_elsewhere(row) else ""),
            f"{milliseconds(row.latency_s)}\n{interval}",
            f"{_fit(row, answer.budget_s)}\n{'' if row.verdict == 'ok' else row.verdict}",
        )
    yield table
    yield from (f"{row.artifact}: with {row.unusual}" for row in rows[:_MOST_ROWS] if row.unusual)
    if len(rows) > _MOST_ROWS:
        yield f"and {len(rows) - _MOST_ROWS} more"
    yield ""


def _counted_elsewhere(answer: "Recommendation") -> Iterator[RenderableType]:
    """What the mark behind a top-1 in the tables means."""
    tables = (answer.runners_up, answer.over_budget, answer.less_accurate if answer.best is None else [])
    marked = [row for rows in tables for row in rows[:_MOST_ROWS] if _is_counted_elsewhere(row)]
    if marked:
        counted = " or ".join(dict.fromkeys(map(_top1_precision, marked)))
        yield note(f"{_ELSEWHERE} top-1 in {counted}; the row computes in another precision")
        yield ""


def _is_counted_elsewhere(row: "RecommendRow") -> bool:
    """Whether the top-1 is of another precision than the row's."""
    return row.top1 is not None and row.precision != row.top1_precision


def _top1_precision(row: "RecommendRow") -> str:
    return "float32" if row.top1_precision == "f32" else str(row.top1_precision)


def _unknown(answer: "Recommendation") -> Iterator[RenderableType]:
    """Those without a top-1, and how to find it."""
    if not answer.unknown_accuracy:
        return
    yield from _networks("no known accuracy", answer.unknown_accuracy, answer)
    yield "published top-1 hold for float32 files with ImageNet's weights; for others run"
    yield "  mbexport evaluate ARTIFACT --images DIR --json > FILE"
    yield "and ask again with --accuracy FILE"
    yield ""


def _fit(row: "RecommendRow", budget_s: float) -> str:
    if not row.fits:
        return f"+{row.latency_s / budget_s - 1:.0%}"
    return "not surely" if row.surely is False else "fits"


def _unanswered(answer: "Recommendation") -> Iterator[RenderableType]:
    reasons: dict[str, list[str]] = {}
    for row in answer.unanswered:
        place = f"{row.artifact} {row.runtime} {_mode(row)}, {_threads(row.threads)}"
        reasons.setdefault(row.reason, []).append(place)
    for reason, places in reasons.items():
        yield note(f"cannot answer, {reason}:")
        yield from (f"  {place}" for place in places[:_MOST_ROWS])
        if len(places) > _MOST_ROWS:
            yield f"  and {len(places) - _MOST_ROWS} more"


def _not_measured(answer: "Recommendation") -> Iterator[RenderableType]:
    """By name those that could have been the answer."""
    if not answer.not_measured:
        return
    taken = 0.0 if answer.best is None or answer.best.top1 is None else answer.best.top1
    better = [each for each in answer.not_measured if each.top1 > taken and each.top1 >= (answer.min_top1 or 0.0)]
    several = "network was" if len(answer.not_measured) == 1 else "networks were"
    count = f"{len(answer.not_measured)} published {several} not measured so"
    if not better:
        yield f"{count}; none is more accurate"
        return
    yield f"{count}; these may be better:"
    yield from (f"  {each.artifact}, top-1 {_percent(each.top1)} %" for each in better[:_MOST_ROWS])
    if len(better) > _MOST_ROWS:
        yield f"  and {len(better) - _MOST_ROWS} more"
    yield f"estimate one with: mbexport profile predict --model {better[0].artifact}"


def _how(row: "RecommendRow") -> str:
    return f"{row.runtime} {_mode(row)}, {_threads(row.threads)}"


def _mode(row: "RecommendRow | Unanswered | PredictedRow | RefusedRow") -> str:
    return f"{row.mode} {row.precision}"


def _threads(count: int) -> str:
    return f"{count} thread{'' if count == 1 else 's'}"


def _interval(ends_s: tuple[float, float]) -> str:
    return " to ".join(milliseconds(end_s) for end_s in ends_s)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share * 100:.4g}"
