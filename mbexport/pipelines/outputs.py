"""What is made of cells that pass: bundles and serving layouts, and their way to where they are served from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from mbexport.artifact import read_artifact
from mbexport.bundle.evidence import StoredValidation, profiles_of
from mbexport.bundle.layouts.write import write_proved
from mbexport.bundle.make import Contents, write
from mbexport.errors import MbexportError
from mbexport.publish import publish

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from mbexport.artifact import Artifact
    from mbexport.pipelines.file import Pipeline
    from mbexport.pipelines.placing import Output
    from mbexport.pipelines.run import JudgedCell


class OutputResult(msgspec.Struct, frozen=True, kw_only=True):
    """One output."""

    kind: str
    path: str
    cells: list[str]
    passed: bool
    sha256: str | None = None
    """Of a bundle's file."""
    published: str | None = None
    """Its URL."""
    reason: str | None = None
    """Why it was not made, or not published."""


def make_outputs(
    pipeline: Pipeline,
    cells: Mapping[str, JudgedCell],
    progress: Callable[[str, float | None], None],
) -> list[OutputResult]:
    """Make what can be made; publish where every cell and every output of the pipeline is good."""
    made = []
    for output in pipeline.outputs:
        failed = [name for name in output.cells if not cells[name].passed]
        progress(f"{output.kind} {output.path}", None)
        made.append(_skipped(output, f"{failed[0]} did not pass") if failed else _made(output, pipeline, cells))
    if not all(each.passed for each in made) or not all(cell.passed for cell in cells.values()):
        return [_kept_back(output, each) for output, each in zip(pipeline.outputs, made, strict=True)]
    return [_published(output, each) for output, each in zip(pipeline.outputs, made, strict=True)]


def _result(output: Output, *, passed: bool, **more: str | None) -> OutputResult:
    return OutputResult(kind=output.kind, path=str(output.path), cells=list(output.cells), passed=passed, **more)


def _skipped(output: Output, reason: str) -> OutputResult:
    return _result(output, passed=False, reason=reason)


def _made(output: Output, pipeline: Pipeline, cells: Mapping[str, JudgedCell]) -> OutputResult:
    try:
        artifacts = [read_artifact(pipeline.out / name) for name in output.cells]
        if output.kind == "bundle":
            contents = _contents(artifacts, cells, pipeline.profiles)
            return _result(output, passed=True, sha256=write(contents, output.path, output.sign).sha256)
        write_proved(artifacts, output.path, output.kind, profiles=[pipeline.profiles])
        return _result(output, passed=True)
    except MbexportError as error:
        return _skipped(output, str(error))


def _contents(artifacts: Sequence[Artifact], cells: Mapping[str, JudgedCell], profiles: Path) -> Contents:
    """With the validations that the cells passed, wherever that was."""
    validations = {}
    for artifact in artifacts:
        slug = artifact.manifest.slug
        result = cells[slug].result
        assert result.validation is not None
        assert result.machine is not None
        validations[slug] = StoredValidation(machine=result.machine, versions=result.versions, report=result.validation)
    return Contents(artifacts, validations, {each.manifest.slug: profiles_of(each, [profiles]) for each in artifacts})


def _kept_back(output: Output, made: OutputResult) -> OutputResult:
    if output.publish is None or not made.passed:
        return made
    return msgspec.structs.replace(made, reason="not published: something else in the pipeline did not pass")


def _published(output: Output, made: OutputResult) -> OutputResult:
    if output.publish is None:
        return made
    try:
        return msgspec.structs.replace(made, published=publish(output.path, output.publish, force=output.force).url)
    except MbexportError as error:
        return msgspec.structs.replace(made, passed=False, reason=f"not published: {error}")
