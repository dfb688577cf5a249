"""Keras 2's fused batch norm, written as Keras 3 writes it: the passes of ``mbexport.graph`` fold that into Conv."""

from __future__ import annotations

from typing import Any

from mbexport.user_model.nodes import Nodes, data_inputs


def spell_out(nodes: Nodes) -> Nodes:
    """A copy in which batch norm is x * m + (beta - mean * m), where m is gamma / sqrt(variance + epsilon).

    As ``tf.nn.batch_normalization`` does it. Only for channels last, in inference mode and where the operation's other
    results are not used.
    """
    used = {tensor for node in nodes.values() for tensor in data_inputs(node)}
    spelled: Nodes = {}
    for name, node in nodes.items():
        if _is_plain(node) and used.isdisjoint(f"{name}:{index}" for index in range(1, 6)):
            spelled |= {made.name: made for made in _spelled_out(node, {*nodes, *spelled})}
        else:
            spelled[name] = node
    return spelled


def _is_plain(node: Any) -> bool:
    return (
        node.op == "FusedBatchNormV3"
        and not node.attr["is_training"].b
        and node.attr["data_format"].s in (b"NHWC", b"")
    )


def _spelled_out(node: Any, taken: set[str]) -> list[Any]:
    """The last of the nodes has the name of ``node``, so that whoever reads it need not change."""
    import tensorflow as tf

    x, gamma, beta, mean, variance = data_inputs(node)
    scope = f"{node.name.rpartition('/')[0]}/batchnorm".lstrip("/")
    if f"{scope}/add" in taken:  # a layer that is called twice
        scope = f"{node.name}/batchnorm"
    epsilon = _node(tf, "Const", f"{scope}/epsilon", key="dtype")
    epsilon.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(node.attr["epsilon"].f, tf.float32))
    return [
        epsilon,
        _node(tf, "AddV2", f"{scope}/add", variance, f"{scope}/epsilon"),
        _node(tf, "Rsqrt", f"{scope}/Rsqrt", f"{scope}/add"),
        _node(tf, "Mul", f"{scope}/mul", f"{scope}/Rsqrt", gamma),
        _node(tf, "Mul", f"{scope}/mul_1", x, f"{scope}/mul"),
        _node(tf, "Mul", f"{scope}/mul_2", mean, f"{scope}/mul"),
        _node(tf, "Sub", f"{scope}/sub", beta, f"{scope}/mul_2"),
        _node(tf, "AddV2", node.name, f"{scope}/mul_1", f"{scope}/sub"),
    ]


def _node(tf: Any, kind: str, name: str, *inputs: str, key: str = "T") -> Any:
    made = tf.compat.v1.NodeDef(op=kind, name=name, input=inputs)
    made.attr[key].type = tf.float32.as_datatype_enum
    return made
