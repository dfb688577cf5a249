"""What every layout needs of an artifact: its files, contract and labels, and how it was measured to serve best."""

from __future__ import annotations

import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mbexport import serde
from mbexport.artifact import read_labels
from mbexport.bundle.serving import THREADS, servings
from mbexport.errors import MissingPackageError
from mbexport.runtimes import split_target

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from mbexport.artifact import Artifact
    from mbexport.profile import LatencyProfile, Measurement

_COUNTED = re.compile(r"[A-Z][A-Za-z]*_\d+")
LABELS, CONTRACT = "labels.txt", "contract.json"


@dataclass(frozen=True)
class Service:
    """How an engine is to serve on a CPU."""

    model: Path
    """The artifact's file for it."""
    settings: Mapping[str, str]
    """In the engine's own words."""
    batch: int
    """Pictures at once."""


@dataclass(frozen=True)
class Network:
    """An artifact to be served."""

    artifact: Artifact
    services: Mapping[str, Service]
    """By engine."""

    @property
    def name(self) -> str:
        return self.artifact.manifest.slug

    @property
    def batch_is_open(self) -> bool:
        return self.artifact.manifest.input.shape[0] is None

    def labels(self) -> dict[str, bytes]:
        """One name a line; nothing where classes have no names."""
        labels = read_labels(self.artifact)
        return {} if labels is None else {LABELS: "".join(f"{label.name}\n" for label in labels).encode()}

    def contract(self) -> dict[str, bytes]:
        """What goes in and what comes out."""
        manifest = self.artifact.manifest
        return {CONTRACT: serde.json_bytes({"input": manifest.input, "outputs": manifest.outputs})}

    def openvino_ir(self, batch: int | None) -> dict[str, bytes]:
        """``model.xml`` and ``model.bin`` for a batch or, where the artifact leaves it open, for any.

        OpenVINO's ``save_model`` stores float32 weights as f16 unless it is told not to.

        Raises:
            MissingPackageError: OpenVINO is not installed.
        """
        try:
            import openvino as ov
        except ImportError as error:
            raise MissingPackageError(
                "OpenVINO's files are written by OpenVINO; pip install 'mbexport[openvino]'"
            ) from error
        network = ov.Core().read_model(self.services["openvino"].model)
        if batch is not None and self.batch_is_open:
            shape = network.inputs[0].partial_shape
            shape[0] = batch
            network.reshape(shape)
        _name_by_place(network)
        with tempfile.TemporaryDirectory(prefix="mbexport-") as folder:
            path = Path(folder) / "model.xml"
            ov.save_model(network, path, compress_to_fp16=False)
            return {file.name: file.read_bytes() for file in (path, path.with_suffix(".bin"))}


def _name_by_place(network: Any) -> None:
    """OpenVINO calls a node without a name by a number that counts all nodes of the process: other bytes each time."""
    for place, node in enumerate(network.get_ordered_ops()):
        if _COUNTED.fullmatch(node.get_friendly_name()):
            node.set_friendly_name(f"{node.get_type_name()}_{place}")


def network_of(artifact: Artifact, profiles: Sequence[LatencyProfile]) -> Network:
    """With what one machine's profiles say of it."""
    return Network(artifact, {engine: _service(artifact, engine, profiles) for engine in ("ort", "openvino")})


def by_name(networks: Sequence[Network], files: Callable[[Network], dict[str, bytes]]) -> dict[str, bytes]:
    """The files of each: a lone network's at the top, those of several in folders of their names."""
    if len(networks) == 1:
        return files(networks[0])
    return {f"{network.name}/{name}": data for network in networks for name, data in files(network).items()}


def _service(artifact: Artifact, engine: str, profiles: Sequence[LatencyProfile]) -> Service:
    """As tuned; else with the threads of the measured row with the most pictures a second, which settles the batch."""
    serving = next(each for each in servings([artifact], profiles) if each.engine == engine)
    rows = [row for profile in profiles for row in profile.measurements if _serves(engine, row)]
    best = max(rows, key=_per_second, default=None)
    settings, static = dict(serving.settings), artifact.manifest.input.shape[0]
    if best is not None and serving.tuned_on is None:
        settings[THREADS[engine]] = str(best.threads)
    batch = 1 if best is None else best.batch
    return Service(artifact.path / Path(serving.model).name, settings, batch if static is None else static)


def _serves(engine: str, row: Measurement) -> bool:
    """Whether a row is of calls one after the other on a CPU, at the usual options."""
    return split_target(row.runtime) == (engine, "cpu") and row.scenario == "single-stream" and not row.unusual


def _per_second(row: Measurement) -> float:
    """Pictures, by the median replicate."""
    found = sorted(replicate.throughput_per_s for replicate in row.replicates)
    return found[len(found) // 2]
