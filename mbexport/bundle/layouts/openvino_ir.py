"""OpenVINO's own files, for any batch where the artifact leaves it open."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mbexport.bundle.layouts.network import by_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mbexport.bundle.layouts.network import Network


def files(networks: Sequence[Network]) -> dict[str, bytes]:
    return by_name(networks, lambda network: {**network.openvino_ir(None), **network.labels(), **network.contract()})
