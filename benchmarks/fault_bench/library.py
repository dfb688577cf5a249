"""Every kind of fault."""

from __future__ import annotations

from fault_bench import answers, inputs, operators, weights
from fault_bench.sessions import UNINITIALISED_OUTPUT

ALL = (
    inputs.input_scale,
    inputs.missing_rescaling,
    inputs.doubled_rescaling,
    inputs.bgr,
    weights.transposed_depthwise,
    weights.kernel_noise,
    weights.swapped_channels,
    operators.hard_sigmoid,
    operators.swish,
    operators.rounded_sixth,
    operators.relu_for_relu6,
    operators.padding_side,
    weights.batch_norm_epsilon,
    weights.dropped_bias,
    operators.no_excitation,
    operators.active_dropout,
    operators.softmax_axis,
    answers.shifted_classes,
    answers.mixed_up_batch,
    answers.stale_batch,
    weights.half_precision,
    weights.not_a_number,
)
"""Faults of the file."""

SESSIONS = (UNINITIALISED_OUTPUT,)
"""Faults of the runtime."""
