from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", str(ROOT), "--no-deps", "--no-build-isolation", "-w", str(folder)]
    subprocess.run(command, check=True, capture_output=True)
    return zipfile.ZipFile(next(folder.glob("*.whl")))


def test_wheel_holds_the_two_packages_and_the_profiles(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    assert {name.partition("/")[0] for name in names} == {"mbexport", "mbexport_cli", "mbexport-0.1.0.dist-info"}
    for folder, prefix in (
        ("mbexport", "mbexport"),
        ("cli/mbexport_cli", "mbexport_cli"),
        ("profiles", "mbexport/_profiles"),
    ):
        tracked = {
            path.relative_to(ROOT / folder).as_posix()
            for path in (ROOT / folder).rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        }
        packed = {name.removeprefix(f"{prefix}/") for name in names if name.startswith(f"{prefix}/")}
        if folder == "mbexport":
            packed = {name for name in packed if not name.startswith("_profiles/")}
        assert packed == tracked
    assert "mbexport/py.typed" in names
    assert "mbexport-0.1.0.dist-info/licenses/LICENSE" in names


def test_entry_point(wheel: zipfile.ZipFile) -> None:
    entry = wheel.read("mbexport-0.1.0.dist-info/entry_points.txt").decode()
    assert "mbexport = mbexport_cli.__main__:main" in entry


def test_constraints_are_names_and_versions() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[\w.]+(; .+)?", line) for line in pinned), pinned
    names = {re.split(r"[=; ]", line)[0].lower().replace("_", "-") for line in pinned}
    wanted = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    for requirement in (entry for group in wanted for entry in group):
        name = re.split(r"[><=\[; ]", requirement)[0].lower().replace("_", "-")
        if name not in {"mbexport", "onnxruntime", "nvidia-ml-py"}:  # other platforms and CUDA machines
            assert name in names, name


def test_nothing_names_a_place_of_this_machine() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    texts = [
        ROOT / name for name in listed if Path(name).suffix in {".py", ".md", ".toml", ".txt", ".json", ".yml", ""}
    ]
    foreign = re.compile(r"(?<![\w.])/(?:root|home|Users|work)/|files\.pythonhosted|pypi\.org")
    assert [
        str(path) for path in texts if path.is_file() and path != Path(__file__) and foreign.search(path.read_text())
    ] == []
