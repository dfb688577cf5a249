"""What a prepared file is: its digest, its input's name, its operations."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from peer_bench.records import Answers, ModelFile

if TYPE_CHECKING:
    from pathlib import Path

    Facts = tuple[str, list[str] | None]
    """(input name, operation types without constants; None where the format does not tell)."""

_NOT_WORK = {"Constant", "Parameter", "Result"}


def describe(work: Path, path: Path, feeds: Path, answers: Answers) -> ModelFile:
    input_name, operations = {".onnx": _onnx_facts, ".xml": _ir_facts, ".tflite": _tflite_facts}[path.suffix](path)
    digest = hashlib.sha256(path.read_bytes())
    if path.suffix == ".xml":  # OpenVINO's own format keeps the weights beside it
        digest.update(path.with_suffix(".bin").read_bytes())
    return ModelFile(
        path=path.relative_to(work).as_posix(),
        sha256=digest.hexdigest(),
        input_name=input_name,
        answers=answers,
        feeds=feeds.relative_to(work).as_posix(),
        nodes=None if operations is None else len(operations),
        transposes=None if operations is None else operations.count("Transpose"),
    )


def _onnx_facts(path: Path) -> Facts:
    import onnx

    graph = onnx.load(path).graph
    return graph.input[0].name, [node.op_type for node in graph.node if node.op_type not in _NOT_WORK]


def _ir_facts(path: Path) -> Facts:
    from mbexport.runtimes.openvino import import_openvino

    network: Any = import_openvino().Core().read_model(path)
    types = [operation.get_type_name() for operation in network.get_ordered_ops()]
    return network.inputs[0].get_any_name(), [name for name in types if name not in _NOT_WORK]


def _tflite_facts(path: Path) -> Facts:
    from peer_bench.litert import open_interpreter

    return str(open_interpreter(path, threads=1).get_input_details()[0]["name"]), None
