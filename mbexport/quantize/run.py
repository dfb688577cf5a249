"""``quantize``: a float32 artifact and pictures in, a narrower artifact beside it and a verdict out."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import msgspec

from mbexport import hardware
from mbexport.artifact import refuse_foreign
from mbexport.bench.plan import choose_threads
from mbexport.diagnose import refuse_wrong_contract
from mbexport.errors import EngineError, InputError, MissingError, ProcessError
from mbexport.graph.fuse_hard_swish import FIRST_OPSET
from mbexport.predict import FailedPicture
from mbexport.quantize.derive import write_narrower
from mbexport.quantize.judging import Judging, least_sqnr_db
from mbexport.quantize.kinds import make_f16, make_int8
from mbexport.quantize.shown import FEW_PICTURES, MOST_CALIBRATING, show
from mbexport.quantize.verdict import Verdict, timings, verdict_of
from mbexport.serde import refuse_unwritable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from mbexport.artifact import Artifact
    from mbexport.quantize.kinds import Narrow, Narrowed
    from mbexport.quantize.shown import Shown
    from mbexport.quantize.verdict import Timing


class QuantizeReport(msgspec.Struct, frozen=True, kw_only=True):
    """What was made, and whether to use it."""

    artifact: str
    models: dict[str, str]
    """Target -> path of its model file."""
    calibrated_on: int
    """Pictures."""
    weight_levels: int | None
    """The largest 8-bit weight; None in f16."""
    verdicts: list[Verdict]
    failed: list[FailedPicture]
    """Pictures that could not be read."""
    notes: list[str]

    @property
    def go(self) -> bool:
        return all(verdict.go for verdict in self.verdicts)


def quantize(
    artifact: Artifact,
    images: Path,
    targets: Sequence[str],
    *,
    precision: Narrow = "int8",
    out: Path | None = None,
    max_drop: float = 0.005,
    threads: int | None = None,
    progress: Callable[[str], None] = lambda _message: None,
) -> QuantizeReport:
    """Make the int8 or f16 sibling of a float32 artifact and judge it on each target.

    It is calibrated on at most :data:`MOST_CALIBRATING` of the pictures. Where as many others are left, they judge it.
    Else a twin, made the same way of one half of the pictures, is judged on the other half: a little worse than the
    artifact itself, which had twice as many, and never judged on what it has seen.

    Args:
        artifact: in float32.
        images: labelled pictures (a folder a class, or a CSV), or a folder of others.
        targets: that are here.
        precision: of the artifact to be.
        out: the folder in which ``<artifact's folder>_int8`` is made; beside the artifact by default.
        max_drop: of top-1, as a share of 1.
        threads: for the timing; this machine's cores by default.
        progress: called with what is being done.

    Raises:
        ArtifactError: a damaged artifact, or one whose numbers are not finite.
        EngineError: an engine cannot run the network.
        InputError: an artifact that is quantised already, too few pictures.
        MissingError: an engine or device is not here.
        OutputError: the place cannot be written to.
        ProcessError: a measuring process died; the artifact is written by then.
    """
    target = _target(artifact, precision, out)
    cores = choose_threads(threads, hardware.usable_threads())
    made, shown, judging = _made(artifact, images, targets, precision, progress)
    changes = {each: judging.change(made.judged[each], each) for each in targets}
    plain = {each: judging.plain_change(each) for each in targets}
    narrower = write_narrower(artifact, target, precision, made.models, made.derivation)
    clocked = _timed(artifact, narrower, targets, cores, progress)
    least_db = least_sqnr_db(artifact, judging.output)
    judge = partial(verdict_of, clocked=clocked, max_drop=max_drop, least_sqnr_db=least_db)
    sizes = {each: _sizes_bytes(each, narrower, artifact) for each in targets}
    return QuantizeReport(
        artifact=str(narrower.path),
        models={each: str(narrower.model_path(each)) for each in targets},
        calibrated_on=len(made.derivation.pictures_sha256),
        weight_levels=made.derivation.weight_levels,
        verdicts=[judge(each, changes[each], plain[each], model_bytes=sizes[each]) for each in targets],
        failed=shown.failed,
        notes=[*_notes(shown, judging, random=least_db is not None), *made.notes],
    )


def narrow(
    artifact: Artifact,
    images: Path,
    targets: Sequence[str],
    *,
    precision: Narrow = "int8",
    out: Path | None = None,
    progress: Callable[[str], None] = lambda _message: None,
) -> Artifact:
    """The artifact that :func:`quantize` makes, without the verdict; takes and raises the same."""
    target = _target(artifact, precision, out)
    made, _, _ = _made(artifact, images, targets, precision, progress)
    return write_narrower(artifact, target, precision, made.models, made.derivation)


def _made(
    artifact: Artifact, images: Path, targets: Sequence[str], precision: Narrow, progress: Callable[[str], None]
) -> tuple[Narrowed, Shown, Judging]:
    """Nothing is written yet: what is judged and fails must not stand in an older artifact's place."""
    shown = show(artifact, images, progress)
    judging = Judging(artifact, shown, progress)
    return (make_int8 if precision == "int8" else make_f16)(artifact, shown, judging, targets, progress), shown, judging


def _timed(
    artifact: Artifact, narrow: Artifact, targets: Sequence[str], threads: int, progress: Callable[[str], None]
) -> dict[tuple[str, str], Timing]:
    try:
        return timings(artifact, narrow, targets, threads, progress)
    except (EngineError, MissingError, ProcessError) as error:
        text = f"{narrow.path} is whole, but was not timed and has no verdict: {error}"
        raise type(error)(text) from error


def _sizes_bytes(target: str, narrow: Artifact, exact: Artifact) -> tuple[int, int]:
    """Of both model files."""
    return narrow.model_path(target).stat().st_size, exact.model_path(target).stat().st_size


def _target(artifact: Artifact, precision: Narrow, out: Path | None) -> Path:
    """The folder that will be written.

    Raises for an artifact that cannot be quantised, and for a place that is taken or cannot be written to: before the
    minutes that calibration takes.
    """
    if artifact.manifest.precision != "f32":
        raise InputError(f"{artifact.path} is {artifact.manifest.precision} already; give the float32 artifact")
    if artifact.manifest.input.is_dynamic:
        raise InputError(f"{artifact.path} takes pictures of any size; build it with a --resolution to quantise it")
    refuse_wrong_contract(artifact)
    _refuse_spelled_out(artifact)
    folder = artifact.path.absolute()
    if folder.name == "..":
        folder = folder.resolve()
    target = (out or folder.parent) / f"{folder.name}_{precision}"
    refuse_foreign(target)
    refuse_unwritable(target.parent)
    return target


def _refuse_spelled_out(artifact: Artifact) -> None:
    """Opset 13 has no HardSwish, and around its arithmetic neither engine computes in 8 bits."""
    ops = artifact.manifest.graph.ops
    if artifact.manifest.export.opset < FIRST_OPSET and ops.get("HardSigmoid"):
        raise InputError(
            f"{artifact.path} spells its hard-swish out, for opset {artifact.manifest.export.opset} has none; build it "
            f"with --opset {FIRST_OPSET} or newer to quantise it"
        )


def _notes(shown: Shown, judging: Judging, *, random: bool) -> Iterator[str]:
    if len(shown.pixels) < FEW_PICTURES:
        yield (
            f"{len(shown.pixels)} pictures are few: ranges and accuracy are left to chance; better {FEW_PICTURES} to "
            f"{MOST_CALIBRATING} and more"
        )
    if shown.failed:
        yield f"{len(shown.failed)} pictures could not be read and were left out"
    yield from shown.notes
    if judging.left_out:
        yield f"{judging.left_out} pictures fill no batch of {judging.batch} and were left out"
    if random:
        yield "random weights and features have no accuracy: the distance from float32 is judged, beside bf16's own"
    elif shown.labels is None:
        yield "the pictures are not labelled: accuracy is agreement with float32, and what its probabilities expect"
