"""What a pipeline found: for machines (JSON), a job's summary (Markdown), and CI systems' test views (JUnit)."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING

from mbexport import serde
from mbexport.sweep.summary import margin_text

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mbexport.pipelines.run import JudgedCell, PipelineReport

JSON, MARKDOWN, JUNIT = REPORTS = ("pipeline.json", "pipeline.md", "junit.xml")
_NOT_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def write_reports(report: PipelineReport, out: Path) -> list[Path]:
    """Write each whole or not at all.

    Raises:
        OutputError: the place cannot be written to.
    """
    contents = {JSON: serde.json_bytes(report), MARKDOWN: markdown(report).encode(), JUNIT: junit(report)}
    for name, data in contents.items():
        serde.write_atomic(out / name, data)
    return [out / name for name in contents]


def markdown(report: PipelineReport) -> str:
    """A page with a table of cells, every gate that failed or was not judged, and the outputs."""
    return "\n".join([*_lines(report), ""])


def _lines(report: PipelineReport) -> Iterator[str]:
    failed = [cell for cell in report.cells if not cell.passed]
    yield f"# {'Passed' if report.passed else 'Failed'}: {_cell(report.pipeline)}"
    yield ""
    yield f"{len(report.cells)} cells, {len(failed)} failed, on {report.machine}."
    yield ""
    yield "| cell | result | least SQNR margin, dB | gates | p50, ms |"
    yield "|---|---|---:|---|---|"
    for cell in report.cells:
        word = "passed" if cell.passed else "**failed**"
        yield f"| {cell.name} | {word} | {margin_text(cell.result)} | {_counts(cell)} | {_latencies(cell)} |"
    told = [*_told(report)]
    if told:
        yield ""
        yield from told
    if report.outputs:
        yield ""
        yield "| output | path | result |"
        yield "|---|---|---|"
        for output in report.outputs:
            result = output.reason or output.published or output.sha256 or "written"
            yield f"| {output.kind} | {_cell(output.path)} | {_cell(result)} |"


def _counts(cell: JudgedCell) -> str:
    if not cell.gates:
        return "-"
    counts = {word: sum(gate.passed is state for gate in cell.gates) for word, state in _STATES.items()}
    return ", ".join(f"{count} {word}" for word, count in counts.items() if count)


_STATES = {"passed": True, "failed": False, "not judged": None}


def _latencies(cell: JudgedCell) -> str:
    rows = [row for row in cell.result.rows if row.mode == "production"]
    return ", ".join(f"{row.runtime} {row.p50_s * 1e3:.2f}" for row in rows) or "-"


def _told(report: PipelineReport) -> Iterator[str]:
    for cell in report.cells:
        for text in filter(None, (cell.result.error, cell.error)):
            yield f"- {cell.name}: {_cell(text)}"
        for gate in cell.gates:
            if gate.passed is not True:
                word = "failed" if gate.passed is False else "not judged"
                yield f"- {cell.name}, {gate.text}: {word}: {_cell(gate.reason)}"


def _cell(text: str) -> str:
    """In a table a bar would end the cell, and a line the row."""
    return " ".join(text.split()).replace("|", "\\|")


def junit(report: PipelineReport) -> bytes:
    """A suite for each cell with a case for building, each validation and each gate; and a suite of the outputs."""
    root = ET.Element("testsuites", name="mbexport")
    for cell in report.cells:
        suite = _suite(root, cell.name)
        built_s = cell.result.build_s or 0.0
        _case(suite, "build", cell.result.error if cell.result.validation is None else None, seconds=built_s)
        for row in cell.result.validation.rows if cell.result.validation else []:
            _case(suite, f"validate {row.runtime} {row.mode}", None if row.passed else row.reason or "failed")
        if cell.result.validation is not None and cell.result.validation.passed and cell.result.error:
            _case(suite, "bench", cell.result.error)
        if cell.error is not None:
            _case(suite, "judge", cell.error)
        for gate in cell.gates:
            failure = gate.reason if gate.passed is False else None
            _case(suite, gate.text, failure, skipped=gate.reason if gate.passed is None else None)
    if report.outputs:
        suite = _suite(root, "outputs")
        for output in report.outputs:
            _case(suite, f"{output.kind} {output.path}", None if output.passed else output.reason or "failed")
    for suite in root:
        suite.set("tests", str(len(suite)))
        suite.set("failures", str(len(suite.findall("./testcase/failure"))))
        suite.set("skipped", str(len(suite.findall("./testcase/skipped"))))
        suite.set("errors", "0")
    ET.indent(root)
    data: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return data + b"\n"


def _suite(root: ET.Element, name: str) -> ET.Element:
    return ET.SubElement(root, "testsuite", name=_clean(name))


def _case(
    suite: ET.Element, name: str, failure: str | None, *, skipped: str | None = None, seconds: float = 0.0
) -> None:
    case = ET.SubElement(suite, "testcase", name=_clean(name), classname=suite.get("name", ""), time=f"{seconds:.3f}")
    if failure is not None:
        ET.SubElement(case, "failure", message=_clean(failure)).text = _clean(failure)
    elif skipped is not None:
        ET.SubElement(case, "skipped", message=_clean(skipped))


def _clean(text: str) -> str:
    return _NOT_XML.sub("?", text)
