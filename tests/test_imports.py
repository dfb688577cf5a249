"""What may be imported where, seen from outside: a fresh interpreter and its sys.modules."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from mbexport.artifact import Artifact

ROOT = Path(__file__).parents[1]
HEAVY = {
    "numpy",
    "onnx",
    "onnx_ir",
    "onnxruntime",
    "openvino",
    "tensorflow",
    "keras",
    "tf2onnx",
    "scipy",
    "h5py",
    "PIL",
}
SOURCES = sorted([*(ROOT / "mbexport").rglob("*.py"), *(ROOT / "cli").rglob("*.py")])


def modules_after(statement: str) -> set[str]:
    code = f"import json, sys\n{statement}\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT / "tests")
    return {name.partition(".")[0] for name in json.loads(done.stdout.splitlines()[-1])}


@pytest.mark.parametrize(
    "module",
    ["mbexport"]
    + [f"mbexport.{name}" for name in ("spec", "catalog", "architecture", "profile", "thresholds", "errors", "serde")]
    + ["mbexport.runtimes", "mbexport.runtimes.ort", "mbexport.runtimes.openvino", "mbexport.artifact"]
    + ["mbexport.pipeline", "mbexport.validate", "mbexport_cli.app"],
)
def test_importing_is_free(module: str) -> None:
    assert modules_after(f"import {module}") & HEAVY == set()


def test_compare_needs_numpy_alone() -> None:
    extra = modules_after("import mbexport.compare") - modules_after("import numpy, dataclasses, typing")
    assert extra & (HEAVY | {"msgspec", "rich", "typer", "psutil"}) == set()


@pytest.mark.parametrize(
    "arguments", [["--help"], ["doctor", "--help"], ["build", "--help"], ["compare", "--help"], ["--version"]]
)
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    statement = (
        f"sys.argv = ['mbexport', *{arguments}]\nimport contextlib, io\nfrom mbexport_cli.__main__ import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass"
    )
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{statement}\nprint(*sorted(sys.modules), file=sys.stderr)"],
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = {name.partition(".")[0] for name in done.stderr.split()}
    assert "typer" in loaded
    assert loaded & HEAVY == set()


def test_validating_imports_no_tensorflow(small_artifact: Artifact) -> None:
    path = small_artifact.path
    statement = (
        "from pathlib import Path\n"
        "from mbexport.artifact import read_artifact\n"
        "from mbexport.validate import validate\n"
        f"assert validate(read_artifact(Path({str(path)!r})), ['ort:cpu', 'openvino:cpu']).passed"
    )
    assert modules_after(statement) & {"tensorflow", "keras", "tf2onnx", "scipy", "rich", "typer"} == set()


def test_quantizing_imports_no_tensorflow(tmp_path: Path) -> None:
    from tests.quantizing import mobile_artifact, picture_files

    artifact, photos = mobile_artifact(tmp_path), picture_files(tmp_path / "photos", 16)
    statement = (
        "from pathlib import Path\n"
        "from mbexport.artifact import read_artifact\n"
        "from mbexport.quantize import run\n"
        "from mbexport.quantize.verdict import Timing\n"
        "time = Timing(p50s_s=[1.0], precision='f32', memory_bytes=1)\n"
        "run.timings = lambda *_given: {('ort:cpu', row): time for row in ('f32', 'narrow')}\n"
        f"artifact, photos = read_artifact(Path({str(artifact.path)!r})), Path({str(photos)!r})\n"
        "assert run.quantize(artifact, photos, ['ort:cpu']).verdicts"
    )
    assert modules_after(statement) & {"tensorflow", "keras", "tf2onnx", "rich", "typer"} == set()


def test_evaluating_imports_no_tensorflow(tmp_path: Path) -> None:
    from tests.colours import colour_artifact, paint

    artifact = colour_artifact(tmp_path)
    paint(tmp_path / "photos" / "c0" / "a.png", "red")
    statement = (
        "from pathlib import Path\n"
        "from mbexport.artifact import read_artifact\n"
        "from mbexport.evaluate import evaluate\n"
        f"artifact, photos = Path({str(artifact.path)!r}), Path({str(tmp_path / 'photos')!r})\n"
        "assert evaluate(read_artifact(artifact), photos, ['ort:cpu', 'openvino:cpu'], threads=1).images == 1"
    )
    assert modules_after(statement) & {"tensorflow", "keras", "tf2onnx", "scipy", "rich", "typer"} == set()


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_library_prints_nothing(path: Path) -> None:
    calls = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    printed = [call for call in calls if isinstance(call, ast.Name) and call.id == "print"]
    is_program = "mbexport_cli" in path.parts or path.name == "infer.py"  # the latter travels in bundles
    assert not printed or is_program


def test_target_machine_needs_no_build_extra(tmp_path: Path) -> None:
    """With TensorFlow and OpenVINO hidden, building names the extra and everything else still loads."""
    code = """
import sys
for name in ("tensorflow", "keras", "tf2onnx", "openvino", "onnxscript", "h5py"):
    sys.modules[name] = None
import mbexport.bench, mbexport.hardware, mbexport.validate
from mbexport.errors import MissingPackageError
from mbexport.pipeline import build
from mbexport.runtimes import resolve_targets
from mbexport.spec import ModelSpec
from pathlib import Path
from typing import TYPE_CHECKING
try:
    build(ModelSpec(variant="small"), out=Path(sys.argv[1]))
except MissingPackageError as error:
    print(error)
print(resolve_targets(None))
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert "pip install 'mbexport[build]'" in done.stdout
    assert "'ort:cpu'" in done.stdout
    assert "openvino" not in done.stdout
    assert list(tmp_path.iterdir()) == []
