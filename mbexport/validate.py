"""An artifact on every runtime against the stored reference."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from mbexport.accuracy.checks import Checks
from mbexport.accuracy.report import ValidationReport, ValidationRow
from mbexport.artifact import read_reference, read_trace
from mbexport.errors import ArtifactError, InputError, UntiedGraphError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mbexport.accuracy.judge import Observe
    from mbexport.artifact import Artifact

__all__ = ["Checks", "ValidationReport", "ValidationRow", "check_explainable", "explained", "validate"]


def validate(
    artifact: Artifact,
    targets: Sequence[str],
    checks: Checks | None = None,
    *,
    threads: int | None = None,
    progress: Callable[[str], None] | None = None,
    observe: Observe | None = None,
) -> ValidationReport:
    """Run the reference inputs on each target and compare with Keras in float64; docs/accuracy.md derives the limits.

    Two rows a target. ``parity`` pins float32: it passes at a stated distance from the noise floor of Keras's own
    float32, where the engine did compute in float32. ``production`` leaves the engine its defaults, and its limit is
    that of the precision it then computes in. In both, no node may run elsewhere than asked. Where height and width are
    dynamic, each is tried at every size of the reference. An engine that fails makes a failed row.

    Args:
        artifact: a checked artifact.
        targets: targets that are here, such as ``ort:cpu``; see :func:`mbexport.runtimes.resolve_targets`.
        checks: what is asked beyond the artifact's own limits.
        threads: threads for each engine; None leaves the engine's default.
        progress: called with each target and mode before it starts.
        observe: called with every answer.

    Raises:
        ArtifactError: the model cannot be read, its input has no shape, or the stored reference is too noisy to prove
            anything.
        InputError: ``checks.images`` with an artifact of a narrower precision.
        PictureError: one of the user's pictures cannot be read.
        UntiedGraphError: they have no truth, for the graph in float64 is not Keras's network.
        MissingError: an engine or device is not here.
    """
    from mbexport.accuracy.judge import Judge
    from mbexport.accuracy.probes import image_probe, stored_probes
    from mbexport.diagnose import contract_fault, metadata_fault

    checks, tell = checks or Checks(), progress or (lambda _message: None)
    contract = artifact.manifest.input
    if not contract.shape:
        raise ArtifactError(f"{artifact.path}: the manifest gives the input no shape; build the artifact again")
    if checks.images and artifact.manifest.precision != "f32":
        raise InputError(
            f"{artifact.path} is {artifact.manifest.precision}, and --images takes the float32 graph for its truth; "
            "count right answers with: mbexport evaluate"
        )
    stored = read_reference(artifact)
    probes = list(stored_probes(artifact, stored))
    fault = metadata_fault(artifact) or contract_fault(contract, stored)
    untied = None
    if checks.images and fault is None:
        try:
            probes.append(image_probe(artifact, stored, checks.images, tell))
        except UntiedGraphError as error:  # a wrong graph shows on the stored pictures; a right one is told below
            untied = error
    judge = Judge(artifact, checks, probes, threads, observe)
    rows = []
    for target in targets:
        for mode in checks.modes:
            tell(f"{target} {mode}")
            rows.append(judge.row(target, mode) if fault is None else judge.refused(target, mode, fault))
    if untied is not None and all(row.passed for row in rows):
        raise untied
    return ValidationReport(
        passed=bool(rows) and all(row.passed for row in rows),
        rows=rows,
        sizes=[contract.size_of(next(iter(reference.inputs.values()))) for reference in stored.each],
        batches=list(judge.batches(probes[0])),
        coverage=artifact.manifest.coverage,
        golden=len(stored.golden),
        images=0 if untied else len(checks.images),
    )


def explained(
    artifact: Artifact,
    report: ValidationReport,
    *,
    threads: int | None = None,
    progress: Callable[[str], None] | None = None,
) -> ValidationReport:
    """The report with an explanation of each row that failed, or of every row where none did.

    Args:
        artifact: as given to :func:`validate`.
        report: what that found.
        threads: as there.
        progress: called with each target and mode before it starts.

    Raises:
        InputError: an artifact of a narrower precision.
        ArtifactError: the artifact has no trace of its tensors, or that of another graph.
    """
    from mbexport.accuracy.explain import Explainer
    from mbexport.accuracy.probes import stored_probes

    check_explainable(artifact)
    probe = next(stored_probes(artifact, read_reference(artifact)))
    explainer = Explainer(artifact, probe, threads)
    found = []
    for row in [row for row in report.rows if not row.passed] or report.rows:
        if progress is not None:
            progress(f"{row.runtime} {row.mode}")
        found.append(explainer.explain(row))
    return msgspec.structs.replace(report, explanations=found)


def check_explainable(artifact: Artifact) -> None:
    """Raise what :func:`explained` would, before all the work that it would be too late after."""
    if artifact.manifest.precision != "f32":
        raise InputError(
            f"{artifact.path} is {artifact.manifest.precision}, and --explain searches float32 networks; "
            "validate the artifact that it was made of"
        )
    read_trace(artifact)
