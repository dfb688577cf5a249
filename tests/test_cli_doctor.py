"""doctor: what is here, what is broken, and the command that mends it."""

from __future__ import annotations

import importlib.metadata
import json
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from mbexport import doctor
from mbexport.runtimes import DeviceStatus
from mbexport_cli.app import app

if TYPE_CHECKING:
    from pathlib import Path


def test_packages_that_import_are_no_problem() -> None:
    assert doctor.import_problems(["msgspec", "py-cpuinfo"]) == []


def test_package_that_raises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "half_there.py").write_text("raise OSError('libmissing.so: no such file')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    [problem] = doctor.import_problems(["half-there", "msgspec"])
    assert "half-there" in problem.what
    assert "libmissing.so" in problem.what
    assert problem.remedy == "pip install --force-reinstall half-there"


def test_package_that_ends_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "deadly.py").write_text("import os; os.abort()")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    [problem] = doctor.import_problems(["msgspec", "deadly"])
    assert "deadly" in problem.what


def test_python_that_does_not_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "json.py").write_text("raise OSError('not the standard one')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    [problem] = doctor.import_problems(["msgspec"])
    assert "ends with code 1 before it imports anything: OSError: not the standard one" in problem.what
    assert "PYTHONPATH" in problem.remedy


def test_modules_of_the_working_folder_are_not_taken_for_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "msgspec.py").write_text("raise OSError('not the package')")
    monkeypatch.chdir(tmp_path)
    assert doctor.import_problems(["msgspec"]) == []


def versions(monkeypatch: pytest.MonkeyPatch, installed: dict[str, str]) -> None:
    def version(name: str) -> str:
        if name not in installed:
            raise importlib.metadata.PackageNotFoundError(name)
        return installed[name]

    monkeypatch.setattr(importlib.metadata, "version", version)


def test_two_packages_of_one_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    versions(monkeypatch, {"onnxruntime": "1.31.0"})
    assert doctor._rivals() == []
    versions(monkeypatch, {"onnxruntime": "1.31.0", "onnxruntime-gpu": "1.31.0"})
    [problem] = doctor._rivals()
    assert "overwrite" in problem.what
    assert problem.remedy.startswith("pip uninstall -y onnxruntime-gpu onnxruntime")


def test_extras_are_read_from_the_metadata(monkeypatch: pytest.MonkeyPatch) -> None:
    versions(monkeypatch, {"numpy": "2.0", "onnxruntime": "1.31.0"})
    requirements = [
        "numpy>=1.26",
        "onnxruntime-gpu>=1.27; sys_platform == 'linux'",
        "onnxruntime>=1.27; sys_platform != 'linux'",
        "tensorflow>=2.20; extra == 'build'",
        'pytest>=8; extra == "test"',
    ]
    extras = {extra.name: extra for extra in doctor._extras(requirements, [])}
    assert [package.name for package in extras["base"].packages] == ["numpy", "onnxruntime"]
    assert extras["base"].complete
    assert not extras["build"].complete
    assert extras["build"].install == "pip install 'mbexport[build]'"
    assert "test" not in extras


@pytest.mark.parametrize("available", [True, False])
def test_cuda_is_complete_where_a_session_opens_on_it(available: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package is there on every machine; its libraries are what may lack."""
    versions(monkeypatch, {"onnxruntime-gpu": "1.31.0"})
    devices = [
        DeviceStatus("ort:cpu", available=True, detail="here"),
        DeviceStatus("ort:cuda", available=available, detail="libcublas", remedy="install it"),
    ]
    extras = {
        extra.name: extra for extra in doctor._extras(["onnxruntime-gpu[cuda,cudnn]>=1.27; extra == 'cuda'"], devices)
    }
    assert [package.version for package in extras["cuda"].packages] == ["1.31.0"]
    assert extras["cuda"].complete is available


def test_engine_that_does_not_load_is_a_problem() -> None:
    broken = DeviceStatus("ort:cpu", available=False, detail="onnxruntime is broken (why)", remedy="mend")
    absent = DeviceStatus("ort:cuda", available=False, detail="no driver", remedy="install one")
    problems = doctor._broken_engines([broken, absent])
    assert problems == [doctor.Problem(what="onnxruntime is broken (why)", remedy="mend")]


def test_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(doctor, "import_problems", lambda _names: [doctor.Problem(what="x is odd", remedy="mend x")])
    done = CliRunner().invoke(app, ["doctor"])
    assert done.exit_code == 0, done.output
    assert "x is odd" in done.stdout
    assert "mend x" in done.stdout
    document = json.loads(CliRunner().invoke(app, ["doctor", "--json"]).stdout)
    assert "ort:cpu" in {device["target"] for device in document["devices"] if device["available"]}
    assert document["problems"] == [{"what": "x is odd", "remedy": "mend x"}]
    assert list(tmp_path.iterdir()) == []
