"""The graphs, the labels and the contract, for a program of one's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mbexport.bundle.layouts.network import by_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mbexport.bundle.layouts.network import Network


def files(networks: Sequence[Network]) -> dict[str, bytes]:
    return by_name(networks, _files)


def _files(network: Network) -> dict[str, bytes]:
    artifact = network.artifact
    models = {name: (artifact.path / name).read_bytes() for name in sorted(set(artifact.manifest.models.values()))}
    return {**models, **network.labels(), **network.contract()}
