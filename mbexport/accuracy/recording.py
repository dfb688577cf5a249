"""Keeps what the runtimes answer while ``validate`` runs."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from mbexport.accuracy.probes import stored_probes
from mbexport.accuracy.saved import (
    SavedDocument,
    SavedLimit,
    SavedOutputs,
    SavedProbe,
    SavedRow,
    refuse_unwritable,
    write_saved,
)
from mbexport.artifact import read_reference
from mbexport.hardware import detect

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from mbexport.accuracy.probes import Probe
    from mbexport.accuracy.report import ValidationReport, ValidationRow
    from mbexport.accuracy.trial import Trial
    from mbexport.artifact import Artifact
    from mbexport.runtimes import SessionFacts

    Arrays = Mapping[str, NDArray[Any]]


@dataclass
class _Heard:
    """What one runtime answered in one mode, by probe."""

    facts: SessionFacts
    answers: dict[str, Arrays] = field(default_factory=dict)
    limits: dict[str, dict[str, SavedLimit]] = field(default_factory=dict)


class Recording:
    """Give ``observe`` to :func:`mbexport.validate.validate` and its report to :meth:`write`."""

    def __init__(self, artifact: Artifact, path: Path) -> None:
        """Raise :class:`OutputError` where ``path`` cannot be written."""
        refuse_unwritable(path)
        self._path = path
        self._artifact = artifact
        self._outputs = artifact.manifest.outputs
        self._probes = {_name(probe): probe for probe in stored_probes(artifact, read_reference(artifact))}
        self._heard: dict[tuple[str, str], _Heard] = {}

    def observe(self, trial: Trial, probe: Probe, answers: Arrays) -> None:
        """Keep the answers in the largest batch, which is the first that is tried."""
        name = _name(probe)
        self._probes.setdefault(name, probe)
        heard = self._heard.setdefault((trial.target, trial.mode), _Heard(trial.facts[0]))
        if name in heard.answers:
            return
        heard.answers[name] = {out.name: answers[out.name] for out in self._outputs if out.name in answers}
        limits = trial.limits.of(probe, trial.precision, trial.target, trial.mode)
        heard.limits[name] = {
            out: SavedLimit(least_db=limit.least_db, origin=limit.origin) for out, limit in limits.items()
        }

    def write(self, report: ValidationReport) -> None:
        """Write all of it. A runtime that failed has a row, and the answers that it gave before.

        Raises:
            OutputError: the place cannot be written to.
        """
        document = SavedDocument(
            artifact=self._artifact.manifest.slug,
            artifact_sha256=self._artifact.sha256,
            hardware=detect(),
            versions=_versions(),
            outputs=list(self._outputs),
            probes=[
                SavedProbe(name=name, pictures=list(probe.names), inputs_sha256=_digest(probe.pictures))
                for name, probe in self._probes.items()
            ],
            rows=[self._row(row, report.batches[0]) for row in report.rows],
        )
        heard = [self._heard.get((row.runtime, row.mode)) for row in report.rows]
        answers = [one.answers if one else {} for one in heard]
        truth = {name: probe.truth for name, probe in self._probes.items()}
        write_saved(self._path, SavedOutputs(document, truth, answers))

    def _row(self, row: ValidationRow, batch: int) -> SavedRow:
        heard = self._heard.get((row.runtime, row.mode))
        return SavedRow(
            runtime=row.runtime,
            mode=row.mode,
            batch=batch,
            precision=row.precision,
            placement=row.placement,
            engine_options=dict(heard.facts.options) if heard else {},
            versions=dict(heard.facts.versions) if heard else {},
            limits=heard.limits if heard else {},
            passed=row.passed,
            reason=row.reason,
        )


def _name(probe: Probe) -> str:
    return f"reference pictures{probe.where}" if probe.own else probe.where.removeprefix(" on ")


def _digest(pictures: NDArray[Any]) -> str:
    """The same on every machine for the same numbers."""
    little = np.ascontiguousarray(pictures, pictures.dtype.newbyteorder("<"))
    digest = hashlib.sha256(f"{little.dtype.str} {little.shape}".encode())
    digest.update(little.tobytes())
    return digest.hexdigest()


def _versions() -> dict[str, str]:
    packages = {name: importlib.metadata.version(name) for name in ("mbexport", "numpy")}
    return {"python": platform.python_version(), **packages}
