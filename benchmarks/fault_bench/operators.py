"""Operators that compute something else than the layer: activations, padding, squeeze-excite, dropout, softmax."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fault_bench import places
from fault_bench.draft import attribute, set_attributes
from fault_bench.fault import fault

if TYPE_CHECKING:
    import onnx

    from fault_bench.draft import Draft

    Rng = np.random.Generator

ROUNDED_SIXTH = 0.1667
"""1/6 to four decimals, as it stands in published code: 0.02% off, the hardest of the usual roundings to see."""
DROPOUT_RATE = 0.2
"""Keras's default in MobileNetV3."""


@fault("hard-swish replaced by hard-sigmoid", places.hard_swishes)
def hard_sigmoid(_: Draft, node: onnx.NodeProto, __: Rng) -> None:
    """A fusion that lost the product."""
    node.op_type = "HardSigmoid"
    set_attributes(node, alpha=1 / 6, beta=0.5)


@fault("hard-swish replaced by swish", places.hard_swishes)
def swish(draft: Draft, node: onnx.NodeProto, _: Rng) -> None:
    """The smooth activation that hard-swish stands in for."""
    _become_gated(draft, node, "Sigmoid")


@fault("hard-swish with 1/6 rounded", places.hard_swishes)
def rounded_sixth(draft: Draft, node: onnx.NodeProto, _: Rng) -> None:
    """The slope typed in as a decimal."""
    _become_gated(draft, node, "HardSigmoid", alpha=ROUNDED_SIXTH, beta=0.5)


@fault("ReLU6 to ReLU", places.relu6s)
def relu_for_relu6(draft: Draft, node: onnx.NodeProto, _: Rng) -> None:
    """The upper bound was not read."""
    draft.drop_last_input(node)


@fault("padding on the other side", places.padded_at_the_end)
def padding_side(_: Draft, conv: onnx.NodeProto, __: Rng) -> None:
    """SAME_LOWER for SAME_UPPER."""
    pads = attribute(conv, "pads")
    set_attributes(conv, pads=pads[2:] + pads[:2])


@fault("squeeze-excite bypassed", places.excitations)
def no_excitation(_: Draft, mul: onnx.NodeProto, __: Rng) -> None:
    """The map goes on without its gate."""
    mul.op_type = "Identity"
    mul.input.pop(1)


@fault("dropout left active", places.before_dropout)
def active_dropout(draft: Draft, node: onnx.NodeProto, rng: Rng) -> None:
    """Exported in training mode, as one draw of it: Dropout itself ONNX Runtime takes out and OpenVINO refuses."""
    (product,) = places.classifier(draft)
    kept = rng.random((draft.array(product.input[1]).shape[0], 1, 1)) >= DROPOUT_RATE
    draft.insert_after(node, "Mul", [(kept / (1 - DROPOUT_RATE)).astype(np.float32)])


@fault("softmax on the wrong axis", places.softmaxes)
def softmax_axis(_: Draft, node: onnx.NodeProto, __: Rng) -> None:
    """Over the batch instead of the classes."""
    set_attributes(node, axis=0)


def _become_gated(draft: Draft, node: onnx.NodeProto, gate: str, **attributes: float) -> None:
    """Turn a node into the product of what it reads and ``gate`` of that."""
    data = node.input[0]
    draft.insert_before(node, gate, (), **attributes)
    node.op_type = "Mul"
    node.input.append(data)
