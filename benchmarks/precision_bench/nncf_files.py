"""The same networks quantised by NNCF with its preset for networks such as these, on OpenVINO."""

from __future__ import annotations

import importlib
import importlib.util
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from precision_bench.accuracy import TARGETS, distance, say
from precision_bench.judge import judge
from precision_bench.networks import LARGE, LARGE_075, SMALL

if TYPE_CHECKING:
    from collections.abc import Iterator

    from precision_bench.records import Found
    from precision_bench.subject import Subject

NNCF = "NNCF, mixed preset"
TARGET = TARGETS["openvino"]
NETS = (SMALL, LARGE, LARGE_075)


def is_here() -> bool:
    """Whether NNCF can be imported: it is no dependency of this project."""
    if importlib.util.find_spec("nncf") is None:
        say("nncf is not installed here: left out")
        return False
    return True


def measure(subject: Subject, found: Found) -> Iterator[None]:
    """Accuracy of the network with real weights, both ways round; of others the distance."""
    with tempfile.TemporaryDirectory(prefix="mbexport-") as folder:
        if subject.name != SMALL.name:
            if not any((one.network, one.what) == (subject.name, "nncf") for one in found.distances):
                say(f"{subject.name}: nncf")
                found.distances.append(distance(subject, "nncf", TARGET, quantised(subject, 0, Path(folder))))
                yield
        elif not any(one.variant == NNCF for one in found.others):
            say(f"{subject.name}: nncf")
            found.others += judge(
                [subject], None, NNCF, [TARGET], lambda subject, half: quantised(subject, half, Path(folder))
            )
            yield


def quantised(subject: Subject, half: int, folder: Path) -> Path:
    """A file in OpenVINO's own format; NNCF's other settings are its defaults."""
    import openvino as ov

    nncf = importlib.import_module("nncf")  # no dependency, so nothing to check types against

    source = ov.Core().read_model(subject.artifact.path / "model.onnx")
    shown = [batch[at : at + 1] for batch in subject.calibrating(half) for at in range(len(batch))]
    model = nncf.quantize(source, nncf.Dataset(shown), preset=nncf.QuantizationPreset.MIXED, subset_size=len(shown))
    path = folder / f"{half}.xml"
    ov.save_model(model, path, compress_to_fp16=False)
    return path
