"""Single nodes, run by ONNX Runtime on many pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import helper, numpy_helper

from mbexport.errors import ArtifactError
from mbexport.runtimes.ort_calls import engine_errors, import_onnxruntime, silent_options

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    import onnx
    from numpy.typing import NDArray

    Batches = list[NDArray[Any]]

_IR_VERSION = 10
_LET_GO = np.empty(0, np.float32)


def run_node(
    node: onnx.NodeProto,
    inputs: Mapping[str, Batches],
    constants: Mapping[str, NDArray[Any]],
    opsets: Iterable[onnx.OperatorSetIdProto],
    spent: Collection[str] = (),
) -> list[Batches]:
    """Each result of a node, in batches of pictures as they came in.

    Args:
        node: of one or more results.
        inputs: by name, one at least.
        constants: its other inputs by name.
        opsets: whose operators it is of.
        spent: inputs that nothing reads any more. Each batch is let go as soon as it has been read, so that a tensor's
            memory serves the next one: on V2 one tensor of 200 pictures is 1 GB.

    Raises:
        EngineError: ONNX Runtime cannot run it.
    """
    results = [name for name in node.output if name]
    with engine_errors(f"ONNX Runtime cannot run {node.name} ({node.op_type})"):
        session = _session(node, {name: batches[0] for name, batches in inputs.items()}, constants, opsets)
        rows = []
        for at, batch in enumerate(_rows(inputs)):
            rows.append(session.run(results, dict(zip(inputs, batch, strict=True))))
            for name in spent:
                inputs[name][at] = _LET_GO
    return [list(batches) for batches in zip(*rows, strict=True)]


def refuse_infinite(tensor: str, batches: Batches) -> None:
    """Raises ArtifactError where a number is none."""
    if not all(np.isfinite(batch).all() for batch in batches):
        raise ArtifactError(f"{tensor} holds numbers that are not finite; check the network with: mbexport validate")


def _rows(inputs: Mapping[str, Batches]) -> Iterable[Sequence[NDArray[Any]]]:
    return zip(*inputs.values(), strict=True)


def _session(
    node: onnx.NodeProto,
    inputs: Mapping[str, NDArray[Any]],
    constants: Mapping[str, NDArray[Any]],
    opsets: Iterable[onnx.OperatorSetIdProto],
) -> Any:
    ort = import_onnxruntime()
    graph = helper.make_graph(
        [node],
        "node",
        [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), [None] * array.ndim)
            for name, array in inputs.items()
        ],
        [helper.make_empty_tensor_value_info(name) for name in node.output if name],
        [
            numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name)
            for name, array in constants.items()
        ],
    )
    model = helper.make_model(graph, opset_imports=list(opsets), ir_version=_IR_VERSION)
    options = silent_options(ort)
    options.enable_cpu_mem_arena = False  # which keeps the memory of results that were let go
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
