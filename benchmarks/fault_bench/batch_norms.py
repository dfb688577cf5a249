"""What the file no longer tells of the batch norms that were folded into its convolutions, from the Keras network."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fault_bench.draft import BatchNorm
from mbexport.layer_names import layer_labels

if TYPE_CHECKING:
    import keras


def batch_norms_of(model: keras.Model) -> dict[str, BatchNorm]:
    """Every batch norm that follows a convolution, by the name of that convolution's node."""
    labels = layer_labels(model)
    found = {}
    for norm in model.layers:
        if type(norm).__name__ != "BatchNormalization":
            continue
        conv = norm.input._keras_history.operation  # noqa: SLF001 - Keras's own record
        variance, beta = (np.asarray(weight, np.float64) for weight in (norm.moving_variance, norm.beta))
        found[f"{labels[id(conv)]}/Conv"] = BatchNorm(variance, beta)
    return found
