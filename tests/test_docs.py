"""README and docs tell the truth: commands exist, examples run, figures come from the profiles."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
COMMANDS = [
    "run",
    "build",
    "convert",
    "validate",
    "compare",
    "bench",
    "quantize",
    "tune",
    "predict",
    "evaluate",
    "bundle",
    "verify",
    "rebuild",
    "publish",
    "pipeline check",
    "pipeline plan",
    "pipeline run",
    "sweep",
    "cache list",
    "cache prune",
    "profile show",
    "profile diff",
    "profile merge",
    "profile recommend",
    "profile predict",
    "profile report",
    "list",
    "info",
    "doctor",
]


def mbexport(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mbexport_cli", *arguments], capture_output=True, text=True, check=False, cwd=cwd
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_command_is_in_readme_and_has_an_example(command: str) -> None:
    assert f"`mbexport {command}" in README
    text = mbexport(*command.split(), "--help").stdout
    assert f"mbexport {command}" in text.split("Example")[-1]


def test_readme_names_every_command() -> None:
    listed = re.findall(r"^│ (\w+) ", mbexport("--help").stdout.split("Commands")[1], flags=re.MULTILINE)
    assert {command.split()[0] for command in COMMANDS} == set(listed)


def test_python_example_runs(tmp_path: Path) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert len([line for line in example.splitlines() if line]) <= 10
    done = subprocess.run([sys.executable, "-c", example], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert re.search(r"ort:cpu f32 1\d\d\.\d+ True", done.stdout)


def test_architecture_names_every_module() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    for path in (ROOT / "mbexport").iterdir():
        if path.name not in {"__init__.py", "__pycache__", "py.typed"}:
            assert f"{path.name}`" in text or f"{path.name}/`" in text, path.name


def test_measured_table_is_the_profiles() -> None:
    """README's table is made by benchmarks/readme.py from the committed profiles."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "readme.py"), "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_test_command_is_what_ci_runs() -> None:
    after = README.split("<!-- test-command -->")[1]
    command = next(line for line in after.splitlines() if line.startswith("python -m pip"))
    assert command == "python -m pip install -e '.[all,test]' -c constraints.txt && python -m pytest"
    assert "<!-- test-command -->" in (ROOT / ".ci" / "run").read_text()
