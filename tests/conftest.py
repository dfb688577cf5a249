"""Fixtures that several files share. Networks are small: what is tested is the road, not their size."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mbexport.spec import ExportOptions, ModelSpec

if TYPE_CHECKING:
    from mbexport.artifact import Artifact

# Before TensorFlow is imported anywhere in the run.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

SMALL = ModelSpec(variant="small", alpha=0.35, height=64, width=64, classes=10)


def pytest_configure(config: pytest.Config) -> None:
    """Import TensorFlow outside the tests: it warns of its own deprecations, which are no test's fault."""
    import signal
    import warnings

    # Background jobs are started with Ctrl-C ignored, nohup's with SIGHUP, and what tests interrupt would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import tensorflow as tf  # noqa: F401
        import tf2onnx  # noqa: F401


@pytest.fixture(scope="session")
def small_artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """A whole artifact of a small V3 with random weights. Do not write into it."""
    from mbexport.pipeline import build

    return build(SMALL, export=ExportOptions(), out=tmp_path_factory.mktemp("artifacts")).artifact


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real ImageNet weights and photographs, where it is present."""
    place = os.environ.get("MBEXPORT_TEST_DATA") or Path(__file__).parents[2] / "shared" / "data"
    folder = Path(place)
    if not (folder / "weights").is_dir():
        pytest.skip(f"no real weights at {folder}; set MBEXPORT_TEST_DATA to a folder that holds weights/ and images/")
    return folder
