"""Older profile documents, made what the present release writes: one function from each schema version to the next."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

from mbexport.samples import packed

if TYPE_CHECKING:
    from mbexport.serde import Upgrade

Document = dict[str, Any]


def from_1(document: Document) -> Document:
    """Version 1 wrote samples as plain numbers. Scenarios and the time that a process takes to start came with 2."""
    return {
        **document,
        "schema_version": 2,
        "measurements": [
            {**row, "replicates": [_packed(replicate) for replicate in row["replicates"]]}
            for row in document["measurements"]
        ],
    }


def _packed(replicate: Document) -> Document:
    samples_ns = replicate.pop("samples_ns")
    return {**replicate, "samples": base64.b64encode(packed(samples_ns)).decode()}


UPGRADES: dict[int, Upgrade] = {1: from_1}
