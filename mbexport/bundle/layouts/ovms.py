"""OpenVINO Model Server's repository: ``config.json``, and one version of each model in a folder of its name.

The keys are those of docs/parameters.md in openvinotoolkit/model_server, the folders those of its
docs/models_repository.md; a base path may be relative to config.json. docs/ovms.schema.json is written from the same
pages.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mbexport import serde

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mbexport.bundle.layouts.network import Network


def files(networks: Sequence[Network]) -> dict[str, bytes]:
    models = {f"{network.name}/{name}": data for network in networks for name, data in _files(network).items()}
    config = {"model_config_list": [{"config": _config(network)} for network in networks]}
    return {"config.json": serde.json_bytes(config), **models}


def _files(network: Network) -> dict[str, bytes]:
    batch = network.services["openvino"].batch
    return {**{f"1/{name}": data for name, data in network.openvino_ir(batch).items()}, **network.labels()}


def _config(network: Network) -> dict[str, Any]:
    return {
        "name": network.name,
        "base_path": network.name,
        "target_device": "CPU",
        "nireq": 1,  # one call at a time, as it was measured; the server queues the others
        "plugin_config": dict(network.services["openvino"].settings),
    }
