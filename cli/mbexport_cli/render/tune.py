"""The configuration that was found, and the evidence."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich.console import RenderableType
from rich.text import Text

from mbexport_cli.render.parts import decibels, heading, milliseconds, new_table, note
from mbexport_cli.render.predict import percent, unreadable

if TYPE_CHECKING:
    from mbexport.artifact import Artifact
    from mbexport.tune.run import TuneReport
    from mbexport.tuned import AccuracyCheck, Configuration, Ratio, Trial, TunedConfiguration

_LAST_RUNG = 3
_SHORT = {
    "session.intra_op.allow_spinning=0": "no spinning",
    "session.dynamic_block_base=4": "small blocks",
    "ENABLE_CPU_PINNING=NO": "unpinned",
    "ENABLE_HYPER_THREADING=YES": "hyper-threads",
}
"""What a table has room for; the option itself stands in the configuration."""


def tuned(artifact: "Artifact", report: "TuneReport") -> Iterator[RenderableType]:
    """The choice, the last rung, the accuracies, and why the rest is out."""
    yield from heading(artifact)
    found = report.tuned
    yield from _accuracies(found)
    yield from _finals(found)
    yield ""
    yield from _dropped([trial for trial in found.trials if 0 < trial.rung < _LAST_RUNG])
    yield from _untimed(found.trials)
    yield from (note(text) for text in report.notes)
    yield from unreadable(report.failed)
    if report.replaced:
        yield note(report.replaced)
    yield from _choice(report)


def _accuracies(found: "TunedConfiguration") -> Iterator[RenderableType]:
    each = {_variant(trial.configuration): trial for trial in found.trials}.values()
    judged = [(trial, trial.accuracy) for trial in each if trial.accuracy and trial.accuracy.rule != "float32"]
    if not judged:
        return
    by_numbers = judged[0][1].rule == "sqnr"
    figures = ("SQNR dB", "least") if by_numbers else ("drop", "95% interval", "expected", "agree %")
    table = new_table("accuracy", "precision", "file", *figures, "", right=figures)
    for trial, check in judged:
        word = ("in" if check.inside else "OUT") + ("?" if _untold(check) else "")
        cells = _decibels(check) if by_numbers else _shares(check)
        table.add_row(trial.configuration.runtime, _precision(trial), _file(trial.configuration), *cells, word)
    yield table
    pictures = judged[0][1].pictures
    if by_numbers:
        yield f"on {pictures} reference inputs; limit: 10 dB under what bf16 costs this network"
    else:
        yield f"drop of top-1 in points on {pictures} pictures against float32; limit: {found.max_drop * 100:g}"
    if any(_untold(check) for _, check in judged):
        yield note("?: too few pictures for their labels to tell; judged by the expected drop")
    yield ""


def _untold(check: "AccuracyCheck") -> bool:
    """Whether there are labels, and the interval of what they tell reaches over the limit."""
    return check.rule == "expected" and check.top1_drop is not None


def _decibels(check: "AccuracyCheck") -> tuple[str, str]:
    least = "-" if check.least_sqnr_db is None else f"{check.least_sqnr_db:.1f}"
    return decibels(check.sqnr_db, exact=check.inside), least


def _shares(check: "AccuracyCheck") -> tuple[str, ...]:
    ends = check.top1_drop_ci
    shares = (check.top1_drop, check.expected_drop, check.agreement)
    drop, expected, agreement = ("-" if share is None else percent(share) for share in shares)
    return drop, "-" if ends is None else f"{percent(ends[0])} to {percent(ends[1])}", expected, agreement


def _finals(found: "TunedConfiguration") -> Iterator[RenderableType]:
    """The chosen one stands first."""
    trials = [trial for trial in found.trials if trial.rung == _LAST_RUNG]
    files = ("file",) if len({trial.configuration.model for trial in found.trials}) > 1 else ()
    more = {"p50": "95% interval", "p99": "p99 ms", "throughput": "pictures/s"}[found.objective]
    figures = ("thr.", "p50 ms", more)
    table = new_table("last rung", "precision", *files, *figures, "options", right=figures)
    for trial in trials:
        wanted, ends = trial.configuration, trial.p50_ci_s
        told = {
            "p50": "-" if ends is None else f"{milliseconds(ends[0])} to {milliseconds(ends[1])}",
            "p99": milliseconds(trial.p99_s),
            "throughput": "-" if trial.throughput_per_s is None else f"{trial.throughput_per_s:.0f}",
        }[found.objective]
        file = (_file(wanted),) if files else ()
        times = (_threads(wanted), milliseconds(trial.p50_s), told)
        table.add_row(wanted.runtime, _precision(trial), *file, *times, _options(wanted))
    yield table
    yield f"the first one is chosen; {trials[0].processes} rounds of fresh processes in turns"
    if any(trial.configuration.callers > 1 for trial in trials):
        yield "thr.: threads, and callers that share them; p50: of one caller's calls"


def _dropped(trials: "Sequence[Trial]") -> Iterator[RenderableType]:
    if not trials:
        return
    figures = ("thr.", "p50 ms", "rung")
    table = new_table("dropped", "precision", "file", *figures, "options", right=figures)
    for trial in trials:
        table.add_row(
            trial.configuration.runtime,
            _precision(trial),
            _file(trial.configuration),
            _threads(trial.configuration),
            milliseconds(trial.p50_s),
            str(trial.rung),
            _options(trial.configuration),
        )
    yield table
    yield ""


def _untimed(trials: "Sequence[Trial]") -> Iterator[RenderableType]:
    """Those that an engine could not run, or that there was no time for; the accuracies have told of the rest."""
    late = [trial for trial in trials if trial.rung == 0 and trial.accuracy is not None and trial.accuracy.inside]
    if late:
        yield note(f"{len(late)} more could not be timed within --budget, or at all: {late[0].outcome}")
    for trial in trials:
        if trial.accuracy is None:
            where = trial.configuration
            yield note(f"{where.runtime} {where.mode} {where.model} of {where.artifact}: {trial.outcome}")


def _choice(report: "TuneReport") -> Iterator[RenderableType]:
    found = report.tuned
    wanted = found.configuration
    word = "go" if found.go else "no-go: nothing narrower is faster than float32 beyond the noise; float32's best:"
    yield Text(word, style="bold green" if found.go else "bold yellow")
    callers = "" if wanted.callers == 1 else f", {wanted.callers} callers"
    threads = f"{wanted.threads} thread{'' if wanted.threads == 1 else 's'}"
    yield f"  {wanted.runtime} {wanted.mode}, {found.precision}, {threads}{callers}, batch {wanted.batch}"
    yield f"  model:   {report.path}/{wanted.model}"
    yield f"  sha256:  {wanted.model_sha256}"
    for name, value in wanted.options.items():
        yield f"  option:  {name}={value}"
    if found.go:
        yield f"  {_times(found.over_float32)} faster than the best in float32"
    if found.over_defaults is not None:
        yield f"  {_times(found.over_defaults)} faster than float32 at the defaults of {wanted.runtime}"
    yield f"{report.seconds:.0f} s; measure it again with: mbexport bench {report.artifact} --tuned"
    yield f"profile:  {report.profile}"


def tuned_before(found: "TunedConfiguration") -> str:
    """Two lines on what was found earlier."""
    wanted = found.configuration
    options = f", {_options(wanted)}" if wanted.options else ""
    word = f"go, {_times(found.over_float32)} over float32's best" if found.go else "no-go; float32's best:"
    return (
        f"tuned for {found.objective} on {found.tuned_on[:10]}: {word}\n"
        f"  {wanted.runtime} {wanted.mode}, {found.precision}, {_threads(wanted)} thr., batch {wanted.batch}{options} "
        f"(max drop {found.max_drop * 100:g})"
    )


def _times(ratio: "Ratio") -> str:
    return f"{ratio.value:.2f} x [{ratio.ci[0]:.2f}, {ratio.ci[1]:.2f}]"


def _variant(wanted: "Configuration") -> tuple[str, str, str, str]:
    return wanted.artifact, wanted.model, wanted.runtime, wanted.mode


def _precision(trial: "Trial") -> str:
    """The precision; of an int8 file on OpenVINO also that of its islands, where it is pinned."""
    wanted = trial.configuration
    pinned = trial.precision == "int8" and wanted.mode == "parity" and wanted.runtime.startswith("openvino")
    return f"{trial.precision} f32" if pinned else trial.precision


def _file(wanted: "Configuration") -> str:
    """Which of an artifact's model files it is."""
    return wanted.model.removesuffix(".onnx").removeprefix("model_")


def _threads(wanted: "Configuration") -> str:
    return str(wanted.threads) if wanted.callers == 1 else f"{wanted.threads}/{wanted.callers}"


def _options(wanted: "Configuration") -> str:
    return ", ".join(_SHORT.get(f"{name}={value}", f"{name}={value}") for name, value in wanted.options.items())
