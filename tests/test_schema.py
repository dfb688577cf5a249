"""The published JSON Schemas: they are the classes', and what is printed keeps them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest
from onnx import helper

from tests.test_cli_results import invoke
from tests.tiny import TinyNetwork, tiny_artifact

if TYPE_CHECKING:
    from mbexport.artifact import Artifact

ROOT = Path(__file__).parents[1]


def checker(name: str) -> jsonschema.Draft202012Validator:
    document: dict[str, Any] = json.loads((ROOT / "docs" / f"{name}.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(document)
    return jsonschema.Draft202012Validator(document)


def test_the_files_are_what_the_classes_say() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "schema.py"), "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_validate_keeps_it(small_artifact: Artifact, tmp_path: Path) -> None:
    saved = tmp_path / "answers.npz"
    done = invoke("validate", str(small_artifact.path), "--json", "--explain", "--save-outputs", str(saved))
    document = json.loads(done.stdout)
    checker("validate").validate(document)
    assert document["explanations"]
    done = invoke("compare", str(saved), "--json")
    checker("compare").validate(json.loads(done.stdout))


def test_validate_keeps_it_where_rows_fail(tmp_path: Path) -> None:
    """Not finite, and an operator that no engine knows."""
    model = TinyNetwork().onnx_model()
    model.graph.node[2].CopyFrom(helper.make_node("Unheard", ["convolved"], ["active"], domain="nowhere"))
    artifact = tiny_artifact(tmp_path, model=model.SerializeToString())
    done = invoke("validate", str(artifact.path), "--json")
    assert done.exit_code == 1
    document = json.loads(done.stdout)
    assert {row["sqnr_db"] for row in document["rows"]} == {None}
    checker("validate").validate(document)


def test_bench_its_profile_and_diff_keep_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    where = ["--runtime", "ort:cpu", "--threads", "1", "--budget", "8s"]
    done = invoke("bench", str(tiny_artifact(tmp_path).path), *where, "--json")
    document = json.loads(done.stdout)
    checker("bench").validate(document)
    checker("profile").validate(json.loads(Path(document["profile"]).read_text()))
    done = invoke("profile", "diff", document["profile"], document["profile"], "--json")
    checker("diff").validate(json.loads(done.stdout))


@pytest.mark.parametrize(
    "damage",
    [lambda row: row.pop("runtime"), lambda row: row.update(sqnr_db="high"), lambda row: row.update(mode="fast")],
)
def test_the_schema_refuses_what_is_none(damage: Any, tmp_path: Path) -> None:
    document = json.loads(invoke("validate", str(tiny_artifact(tmp_path).path), "--json").stdout)
    damage(document["rows"][0])
    with pytest.raises(jsonschema.ValidationError):
        checker("validate").validate(document)
