"""Triton's model repository: each network once for its onnxruntime backend and once for its openvino backend.

The fields are those of protobuf/model_config.proto in triton-inference-server/common, the parameters those of the two
backends' README files.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from mbexport.bundle.layouts.network import LABELS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from mbexport.bundle.layouts.network import Network
    from mbexport.manifest import OutputContract

_TYPES = {"float32": "TYPE_FP32", "uint8": "TYPE_UINT8"}
_PARAMETERS = {
    "onnxruntime": {"intra_op_num_threads": "intra_op_thread_count"},
    "openvino": {name: name for name in ("INFERENCE_NUM_THREADS", "NUM_STREAMS", "PERFORMANCE_HINT")},
}
"""An engine's own setting -> what the backend calls it. What it has no word for cannot be set there."""


def files(networks: Sequence[Network]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for network in networks:
        ort, openvino = network.services["ort"], network.services["openvino"]
        found |= _model(network, "onnxruntime", {"model.onnx": ort.model.read_bytes()})
        found |= _model(network, "openvino", network.openvino_ir(openvino.batch))
    return found


def _model(network: Network, backend: str, graph: dict[str, bytes]) -> dict[str, bytes]:
    name, labels = f"{network.name}_{backend}", network.labels()
    config = "".join(f"{line}\n" for line in _config(network, name, backend, labelled=bool(labels)))
    versions = {f"{name}/1/{file}": data for file, data in graph.items()}
    return {f"{name}/config.pbtxt": config.encode(), **versions, **{f"{name}/{key}": labels[key] for key in labels}}


def _config(network: Network, name: str, backend: str, *, labelled: bool) -> Iterator[str]:
    manifest, is_ort = network.artifact.manifest, backend == "onnxruntime"
    service = network.services["ort" if is_ort else "openvino"]
    # OpenVINO is faster on a graph of one batch, whose batch then is a side like the others; as is any that is fixed.
    batches = is_ort and network.batch_is_open
    first = [] if batches else [service.batch]
    yield f"name: {_text(name)}"
    yield f"backend: {_text(backend)}"
    yield f"max_batch_size: {service.batch if batches else 0}"
    yield f"input [ {_tensor(manifest.input.name, manifest.input.type, [*first, *manifest.input.shape[1:]])} ]"
    for output in manifest.outputs:
        yield f"output [ {_output(output, first, labelled=labelled)} ]"
    yield "instance_group [ { count: 1 kind: KIND_CPU } ]"
    if batches and service.batch > 1:
        yield f"dynamic_batching {{ preferred_batch_size: [ {service.batch} ] }}"
    for own, key in _PARAMETERS[backend].items():
        if own in service.settings:
            yield f"parameters {{ key: {_text(key)} value: {{ string_value: {_text(service.settings[own])} }} }}"


def _output(output: OutputContract, first: Sequence[int], *, labelled: bool) -> str:
    label = f" label_filename: {_text(LABELS)}" if labelled and output.kind != "features" else ""
    return _tensor(output.name, "float32", [*first, *output.shape[1:]], label)


def _tensor(name: str, kind: str, shape: Iterable[int | None], more: str = "") -> str:
    dims = ", ".join(str(-1 if side is None else side) for side in shape)
    return f"{{ name: {_text(name)} data_type: {_TYPES[kind]} dims: [ {dims} ]{more} }}"


def _text(value: str) -> str:
    """A string of protobuf's text format, whose escapes are those of JSON; a user's own tensor may be named anyhow."""
    return json.dumps(value, ensure_ascii=False)
