"""Operations of a SavedModel that act on the machine. Loading one already runs its initializers."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from mbexport.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

_ACTING = re.compile(
    "File|Dataset|Reader|Iterator|Record|Summary|ImportEvent|Proto|PyFunc|Remote|Rpc|Collective|Checkpoint"
    "|TPU|TRT|RemapMatrix|VocabRemapping|Skipgram|Abort$|Debug|(Save|Restore)(V2|Slices?)?$|_?(Host)?(Send|Recv)$"
)
"""Files, Python, other machines, the end of the process; also what runs functions out of this check's sight."""
_SAVING = {"SaveV2", "RestoreV2", "MergeV2Checkpoints", "ShardedFilename"}
"""What TensorFlow writes into every SavedModel, for restoring and saving its variables."""
_STANDARD_STREAMS = (b"stderr", b"stdout", b"log(info)", b"log(warning)", b"log(error)")


def refuse_effects(path: Path, model: Any) -> None:
    """Of a SavedModel protobuf.

    Raises:
        InputError: an operation reads or writes files, runs Python or reaches other machines; names it.
    """
    found = sorted({name for meta_graph in model.meta_graphs for name in _acting(meta_graph)})
    if found:
        raise InputError(
            f"SavedModel {path} holds operations that act on the machine: {', '.join(found)}; "
            "if you trust it, add --allow-unsafe"
        )


def _acting(meta_graph: Any) -> Iterator[str]:
    saver = _saver_functions(meta_graph)
    yield from _acting_nodes(meta_graph.graph_def.node)
    for function in meta_graph.graph_def.library.function:
        acting = _acting_nodes(function.node_def)
        yield from (name for name in acting if name not in _SAVING or function.signature.name not in saver)


def _acting_nodes(nodes: Iterable[Any]) -> Iterator[str]:
    for node in nodes:
        prints_into_file = node.op == "PrintV2" and node.attr["output_stream"].s not in (b"", *_STANDARD_STREAMS)
        if _ACTING.search(node.op) or prints_into_file:
            yield node.op


def _saver_functions(meta_graph: Any) -> set[str]:
    """What the graph's saver calls and the loader does not: it runs what the objects name, and what that calls."""
    graph = meta_graph.graph_def
    ends = {meta_graph.saver_def.save_tensor_name.partition(":")[0], meta_graph.saver_def.restore_op_name}
    called = {name for node in graph.node if node.name in ends for name in _called([node])}
    elsewhere = {name for function in graph.library.function for name in _called(function.node_def)}
    elsewhere |= {name for node in graph.node if node.name not in ends for name in _called([node])}
    loaded = meta_graph.object_graph_def.SerializeToString()
    return {name for name in called - elsewhere if loaded and name.encode() not in loaded}


def _called(nodes: Iterable[Any]) -> Iterator[str]:
    for node in nodes:
        for attribute in node.attr.values():
            yield from (function.name for function in (attribute.func, *attribute.list.func) if function.name)
