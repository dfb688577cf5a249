"""Write the JSON Schemas of profiles and of what the command line prints into docs/, from the classes themselves.

    python benchmarks/schema.py [--check]

``--check`` writes nothing and exits 1 where a file is not what the classes say.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import msgspec

from mbexport.accuracy.compared import SavedComparison
from mbexport.accuracy.report import ValidationReport
from mbexport.analysis.diff import DiffReport
from mbexport.bench import BenchReport
from mbexport.pipelines.document import PipelineDocument
from mbexport.pipelines.run import PipelineReport
from mbexport.profile import LatencyProfile
from mbexport.serde import json_bytes
from mbexport.tune.run import TuneReport

DOCS = Path(__file__).parents[1] / "docs"
DOCUMENTS: dict[str, tuple[type, str]] = {
    "validate": (ValidationReport, "mbexport validate --json"),
    "compare": (SavedComparison, "mbexport compare --json"),
    "bench": (BenchReport, "mbexport bench --json"),
    "tune": (TuneReport, "mbexport tune --json"),
    "profile": (LatencyProfile, "profiles/<hardware>/<artifact>.json"),
    "diff": (DiffReport, "mbexport profile diff --json"),
    "pipeline": (PipelineDocument, "mbexport.toml"),
    "pipeline-report": (PipelineReport, "mbexport pipeline run --json"),
}


def schema(name: str) -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of one of the documents."""
    kind, title = DOCUMENTS[name]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": title, **msgspec.json.schema(kind)}


def main() -> None:
    stale = []
    for name in DOCUMENTS:
        file, data = DOCS / f"{name}.schema.json", json_bytes(schema(name))
        if not file.exists() or file.read_bytes() != data:
            stale.append(file.name)
            if "--check" not in sys.argv:
                file.write_bytes(data)
    if stale and "--check" in sys.argv:
        sys.exit(f"not what the classes say: {', '.join(stale)}; run benchmarks/schema.py")


if __name__ == "__main__":
    main()
