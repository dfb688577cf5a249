"""How long the command line takes to start, beside an empty Typer application of the same version.

Run: python benchmarks/startup.py [--rounds N] [ARTIFACT]

Help: processes alternate (empty, help, doctor help, empty, ...), medians are printed; the aim is 0.10 s over the empty
one at most, with no heavy package imported. With an artifact: the time from process start to the end of the first
inference of ``validate`` and ``bench``; the aim is 2 s at most.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

HEAVY = ("numpy", "onnx", "onnxruntime", "openvino", "tensorflow")
ALLOWED_S = 0.10
FIRST_INFERENCE_S = 2.0

EMPTY_APP = """
import typer
app = typer.Typer()
@app.command()
def main() -> None:
    pass
app()
"""
OURS = "from mbexport_cli.__main__ import main; main()"
LISTING = """
import atexit, json, os, sys
atexit.register(lambda: os.write(int(os.environ["LIST_FD"]), json.dumps(sorted(sys.modules)).encode()))
"""
# Wraps every session's run and bind, in this process and in those that bench starts, to note the end of the first call.
STAMPING = """
import importlib.abc, os, sys, time

def stamp(function):
    def stamped(*args, **kwargs):
        result = function(*args, **kwargs)
        try:
            os.close(os.open(os.environ["STAMP"], os.O_CREAT | os.O_EXCL))
            os.utime(os.environ["STAMP"], ns=(time.time_ns(),) * 2)
        except FileExistsError:
            pass
        return result
    return stamped

class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != "mbexport.runtimes.ort":
            return None
        sys.meta_path.remove(self)
        import importlib.util
        spec = importlib.util.find_spec(name)
        load = spec.loader.exec_module
        def exec_module(module):
            load(module)
            session = module.OrtSession
            bind = session.bind
            session.run = stamp(session.run)
            session.bind = lambda self, feeds: stamp(bind(self, feeds))
        spec.loader.exec_module = exec_module
        return spec

sys.meta_path.insert(0, Finder())
"""


def main() -> None:
    """Print both tables; exit 1 where an aim is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artifact", nargs="?", type=Path)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    kept = compare_help(arguments.rounds)
    if arguments.artifact is not None:
        kept &= first_inferences(arguments.artifact)
    sys.exit(0 if kept else 1)


def compare_help(rounds: int) -> bool:
    """Alternate the three programs and compare their medians and their modules."""
    programs = {
        f"empty Typer {version('typer')} --help": [sys.executable, "-c", EMPTY_APP, "--help"],
        "mbexport --help": [sys.executable, "-c", OURS, "--help"],
        "mbexport doctor --help": [sys.executable, "-c", OURS, "doctor", "--help"],
    }
    samples_s: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(rounds + 1):
        for name, program in programs.items():
            samples_s[name].append(_wall_s(program))
    medians_s = {name: statistics.median(samples[1:]) for name, samples in samples_s.items()}  # the first warms caches
    empty_s = next(iter(medians_s.values()))
    print(f"{'program':<28} {'median s':>9} {'over empty':>11}  heavy imports")
    kept = True
    for name, program in programs.items():
        heavy = [module for module in HEAVY if module in modules_of(program)]
        print(f"{name:<28} {medians_s[name]:>9.3f} {medians_s[name] - empty_s:>+11.3f}  {', '.join(heavy) or 'none'}")
        kept &= medians_s[name] - empty_s <= ALLOWED_S and not heavy
    print(f"aim: at most {ALLOWED_S:.2f} s over empty, no heavy import: {'kept' if kept else 'MISSED'}")
    return kept


def modules_of(program: list[str]) -> list[str]:
    """Names of the modules that a Python program given by ``-c`` has imported when it ends."""
    reader, writer = os.pipe()
    interpreter, flag, code, *rest = program
    subprocess.run(
        [interpreter, flag, LISTING + code, *rest],
        check=True,
        stdout=subprocess.DEVNULL,
        pass_fds=[writer],
        env=os.environ | {"LIST_FD": str(writer)},
    )
    os.close(writer)
    with os.fdopen(reader) as pipe:
        names: list[str] = json.load(pipe)
    return names


def first_inferences(artifact: Path, rounds: int = 3) -> bool:
    """Time ``validate`` and ``bench`` from process start to the end of their first inference, on ``ort:cpu``."""
    kept = True
    for command in ("validate", "bench"):
        median_s = statistics.median(first_inference_s(command, artifact) for _ in range(rounds))
        kept &= median_s <= FIRST_INFERENCE_S
        print(
            f"{command:<9} process start to first inference: {median_s:.2f} s (aim: {FIRST_INFERENCE_S:.0f} s at most)"
        )
    return kept


def first_inference_s(command: str, artifact: Path) -> float:
    """Start a command, wait for its first inference, end it, and give the seconds between the two."""
    with tempfile.TemporaryDirectory() as folder:
        stamp = Path(folder) / "stamp"
        (Path(folder) / "sitecustomize.py").write_text(STAMPING)
        extra = ["--profiles", folder] if command == "bench" else []
        paths = os.pathsep.join(filter(None, [folder, os.environ.get("PYTHONPATH")]))
        start_ns = time.time_ns()
        process = subprocess.Popen(
            [sys.executable, "-c", OURS, command, str(artifact), "--runtime", "ort:cpu", *extra],
            env=os.environ | {"PYTHONPATH": paths, "STAMP": str(stamp)},
            stdout=subprocess.DEVNULL,
        )
        while not stamp.exists() and process.poll() is None:
            time.sleep(0.01)
        process.terminate()
        process.wait()
        if not stamp.exists():
            raise SystemExit(f"{command} ended with code {process.returncode} before its first inference")
        return (stamp.stat().st_mtime_ns - start_ns) / 1e9


def _wall_s(program: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(program, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
