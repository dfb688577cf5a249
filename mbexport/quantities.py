"""The kinds of number that profiles hold."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

Mode = Literal["parity", "production"]

# A profile may come from anywhere. These bounds keep out what no machine can have measured, and are in the JSON Schema.
Count = Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]
"""Of what there is at least one."""
Whole = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
Growth = Annotated[int, msgspec.Meta(ge=-(2**53), le=2**53)]
"""In bytes; negative where memory was given back."""
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Reading = Annotated[float, msgspec.Meta(ge=0, le=1e15)]
"""Of a gauge, such as a clock in hertz."""
Seconds = Annotated[float, msgspec.Meta(ge=0, le=86_400)]
Rate = Annotated[float, msgspec.Meta(ge=1e-6, le=1e12)]
"""Pictures per second."""
