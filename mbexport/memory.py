"""Whether a network fits into this machine's memory and into an ONNX file, asked before anything is built."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mbexport.architecture import activation_elements, largest_activation_elements, layers, parameters
from mbexport.errors import SpecError
from mbexport.pictures import REFERENCE_PICTURES, calibration_count
from mbexport.thresholds import ONNX_MAX_BYTES

if TYPE_CHECKING:
    from mbexport.spec import ModelSpec

BASE_BYTES = 2**30
"""TensorFlow, tf2onnx and ONNX Runtime loaded, nothing built: 0.9 GiB measured."""
BYTES_PER_PARAMETER = 36
"""The network (4) and the copies of the graph while converting and checking passes.

Measured as peak resident memory of whole builds: 25 to 31 for MobileNetV2 at alpha 8, as one reckons its activations.
"""
BYTES_PER_ACTIVATION = 32
"""For each calibration picture: 8 bytes (float64) x 4: convolution, batch norm, activation and padding are kept apart.

Measured likewise, with 8 pictures: 27 to 30 for V2 1.0 at 640, V2 0.35, V3 Large and V3 Small at 448.
"""


def build_bytes(spec: ModelSpec) -> int:
    """Estimate of a build's peak resident memory; 5 to 15% above what was measured."""
    return BASE_BYTES + _parameter_bytes(spec) + _activation_bytes(spec)


def check_memory(spec: ModelSpec, batch: int = 1) -> None:
    """Refuse a network whose build, or one static batch of which, this machine cannot hold, by arithmetic alone.

    Raises:
        SpecError: building needs more memory than is available, or the ONNX file would pass protobuf's 2 GiB.
    """
    needed, available = build_bytes(spec), _available_bytes()
    if needed > available:
        raise SpecError(
            f"building {spec.slug} needs about {_gib_up(needed)} GiB of memory, "
            f"{available // 2**30:,} GiB are available; choose a smaller {_culprit(spec)}"
        )
    largest = max(largest_activation_elements(spec.at(*size)) for size in spec.reference_sizes)
    running_bytes = 2 * 4 * batch * largest  # one layer's input and output, float32
    if running_bytes > available:
        raise SpecError(
            f"a batch of {batch} of {spec.slug} needs at least {_gib_up(running_bytes)} GiB of memory, "
            f"{available // 2**30:,} GiB are available; choose a smaller --batch"
        )
    model_bytes = 4 * parameters(spec)
    if model_bytes > ONNX_MAX_BYTES:
        raise SpecError(
            f"the weights of {spec.slug} take {_gib_up(model_bytes)} GiB, an ONNX file holds less than 2 GiB; "
            f"choose a smaller {_widest_option(spec)}"
        )


def _available_bytes(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """What the system has left, or the container (cgroup v2) where that is less."""
    import psutil

    available: int = psutil.virtual_memory().available
    try:
        limit, used = ((cgroup / f"memory.{name}").read_text().strip() for name in ("max", "current"))
    except OSError:  # another system, cgroup v1, or no limit at the root
        return available
    return available if limit == "max" else min(available, int(limit) - int(used))


def _parameter_bytes(spec: ModelSpec) -> int:
    return BYTES_PER_PARAMETER * parameters(spec)


def _activation_bytes(spec: ModelSpec) -> int:
    """Of the calibration, or of the references at another size where these take more."""
    calibration = calibration_count(*spec.size) * activation_elements(spec)
    references = (REFERENCE_PICTURES * activation_elements(spec.at(*size)) for size in spec.reference_sizes)
    return BYTES_PER_ACTIVATION * max(calibration, *references)


def _culprit(spec: ModelSpec) -> str:
    """The option that the memory goes into."""
    if _activation_bytes(spec) > _parameter_bytes(spec):
        return "--resolution or --alpha"
    return _widest_option(spec)


def _widest_option(spec: ModelSpec) -> str:
    """The option that the parameters go into."""
    classifier = layers(spec)[-1].parameters if spec.include_top else 0
    return "--classes or --alpha" if 2 * classifier > parameters(spec) else "--alpha"


def _gib_up(count_bytes: int) -> str:
    """Whole GiB, rounded up, in integer arithmetic: no size is too large for it."""
    return f"{-(-count_bytes // 2**30):,}"
