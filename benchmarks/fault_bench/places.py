"""Where faults can stand: each function lists the nodes of a finished graph that one kind of fault can hit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fault_bench.draft import attribute

if TYPE_CHECKING:
    import onnx

    from fault_bench.draft import Draft

    Nodes = list[onnx.NodeProto]


def everywhere(draft: Draft) -> Nodes:
    return list(draft.model.graph.node)


def input_reader(draft: Draft) -> Nodes:
    return draft.readers(draft.model.graph.input[0].name)


def convolutions(draft: Draft) -> Nodes:
    return draft.nodes("Conv")


def first_convolution(draft: Draft) -> Nodes:
    return draft.nodes("Conv")[:1]


def depthwise(draft: Draft) -> Nodes:
    return [conv for conv in draft.nodes("Conv") if (attribute(conv, "group") or 1) > 1]


def normalised(draft: Draft) -> Nodes:
    """Convolutions whose folded batch norm is known."""
    return [conv for conv in draft.nodes("Conv") if conv.name in draft.batch_norms]


def biased(draft: Draft) -> Nodes:
    return [node for op_type in ("Conv", "Gemm") for node in draft.nodes(op_type) if len(node.input) > 2]


def padded_at_the_end(draft: Draft) -> Nodes:
    """Stride-2 convolutions: the odd row and column of zeros of TensorFlow's "same" is the last."""
    pads = [(conv, attribute(conv, "pads")) for conv in draft.nodes("Conv")]
    return [conv for conv, around in pads if around is not None and around[:2] != around[2:]]


def hard_swishes(draft: Draft) -> Nodes:
    return draft.nodes("HardSwish")


def relu6s(draft: Draft) -> Nodes:
    return _clips(draft, 6)


def excitations(draft: Draft) -> Nodes:
    """The products of a map, the first input, with its squeeze-excite gate."""
    gates = [gate.output[0] for gate in _clips(draft, 1)]
    return [mul for mul in draft.nodes("Mul") if mul.input[1] in gates]


def softmaxes(draft: Draft) -> Nodes:
    return draft.nodes("Softmax")


def classifier(draft: Draft) -> Nodes:
    """The product with the classifier's matrix, (N, features) x (features, classes)."""
    return [node for node in draft.model.graph.node if node.op_type in {"Gemm", "MatMul"}][-1:]


def flattened(draft: Draft) -> Nodes:
    """What makes the classifier's features, (N, features)."""
    return [draft.producer(node.input[0]) for node in classifier(draft)]


def before_dropout(draft: Draft) -> Nodes:
    """MobileNetV3's Dropout stood between its last activation and the classifier; MobileNetV2 has none."""
    return [draft.producer(node.input[0]) for node in flattened(draft) if node.op_type == "Reshape"]


def logits(draft: Draft) -> Nodes:
    """What makes the logits: the classifier's product, or the addition of its bias."""
    product = classifier(draft)
    added = [reader for node in product for reader in draft.readers(node.output[0]) if reader.op_type == "Add"]
    return added or product


def _clips(draft: Draft, top: float) -> Nodes:
    return [clip for clip in draft.nodes("Clip") if draft.array(clip.input[2]) == top]
