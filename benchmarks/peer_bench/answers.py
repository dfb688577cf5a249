"""Every model's output as centred logits, so that networks with and without a softmax can be compared."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mbexport.compare import centred_log

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from peer_bench.records import Answers


def logits_of(outputs: NDArray[Any], kind: Answers) -> NDArray[np.float64]:
    """(N, classes) probabilities or logits as float64 logits with mean 0: softmax forgets their common offset."""
    return centred_log(outputs) if kind == "probabilities" else centred(outputs)


def centred(logits: NDArray[Any]) -> NDArray[np.float64]:
    values = logits.astype(np.float64)
    without_offset: NDArray[np.float64] = values - values.mean(axis=-1, keepdims=True)
    return without_offset
