"""A network's description changed before it is loaded: computing in float32, its picture of a given size."""

from __future__ import annotations

import copy
import io
import json
import shutil
import zipfile
from typing import TYPE_CHECKING, Any

from mbexport.errors import InputError
from mbexport.user_model.archive import opened, refuse_links, unpacked
from mbexport.user_model.stored import CONFIG, MEMBERS, WEIGHTS, StoredModel, objects

if TYPE_CHECKING:
    from pathlib import Path

OTHER_FLOATS = ("float16", "bfloat16", "float64", "mixed_float16", "mixed_bfloat16")
"""Types and policies of Keras that become float32."""
_POLICIES = ("DTypePolicy", "Policy")


def adapted(stored: StoredModel, size: tuple[int, int] | None) -> tuple[StoredModel, list[str]]:
    """The same network computing in float32, its input a float32 picture of ``size`` where that is open; and notes.

    Changing the description, rather than the network made from it, leaves no layer that has already taken its type
    from a policy, and no Cast between them.

    Raises:
        InputError: a layer that no float32 network can stand for, or that TensorFlow runs on no CPU.
    """
    config = copy.deepcopy(stored.config)
    config.pop("compile_config", None)  # losses and metrics are the training's
    _refuse_layers(stored)
    others = _to_float32(config)
    policies = sorted(name for name in others if f"mixed_{name}" not in others)
    notes = [f"{name}: rebuilt under float32" for name in policies]
    for layer in _inputs(config):
        _open_batch(layer["config"], size)
    return StoredModel(stored.path, stored.keras_version, config), notes


def write(stored: StoredModel, folder: Path) -> Path:
    """A copy of the file in ``folder``, with the description that ``stored`` holds now.

    Raises:
        InputError: the file is damaged, unpacks to something huge, or refers to other files.
    """
    text, copied = json.dumps(stored.config).encode(), folder / stored.path.name
    if stored.path.suffix == ".keras":
        with opened(stored.path) as old, zipfile.ZipFile(copied, "w") as new:
            contents = {name: unpacked(old, stored.path, name) for name in MEMBERS} | {CONFIG: text}
            for name, data in contents.items():
                new.writestr(name, data)
        refuse_links(stored.path, io.BytesIO(contents[WEIGHTS]))
        return copied
    import h5py

    refuse_links(stored.path, stored.path)
    shutil.copyfile(stored.path, copied)
    with h5py.File(copied, "r+") as file:
        file.attrs["model_config"] = text
    return copied


def _refuse_layers(stored: StoredModel) -> None:
    for layer, described in objects(stored.config):
        if described["class_name"].startswith("Quantized"):
            raise InputError(f"{stored.path}: layer {layer} is quantized; convert the model from before quantize()")
        inner = described.get("config")
        if isinstance(inner, dict) and inner.get("data_format") == "channels_first":
            raise InputError(
                f"{stored.path}: layer {layer} expects channels first, which TensorFlow runs on no CPU; "
                "rebuild the network with data_format='channels_last' and give it the same weights"
            )


def _to_float32(described: Any) -> set[str]:
    """Change every type and policy in place; returns those that were another one."""
    found = set()
    if isinstance(described, dict):
        inner = described.get("config")
        if described.get("class_name") in _POLICIES and isinstance(inner, dict) and inner.get("name") in OTHER_FLOATS:
            found.add(inner["name"])
            inner["name"] = "float32"
        if described.get("dtype") in OTHER_FLOATS:
            found.add(described["dtype"])
            described["dtype"] = "float32"
        for value in described.values():
            found |= _to_float32(value)
    elif isinstance(described, list):
        for value in described:
            found |= _to_float32(value)
    return found


def _inputs(config: dict[str, Any]) -> list[dict[str, Any]]:
    """The input layers of the outermost network."""
    inner = config["config"]
    layers = inner.get("layers", []) if isinstance(inner, dict) else []
    return [layer for layer in layers if isinstance(layer, dict) and layer.get("class_name") == "InputLayer"]


def _open_batch(layer: dict[str, Any], size: tuple[int, int] | None) -> None:
    """Any batch, and a size where there is none yet."""
    shape = layer.get("batch_shape", layer.get("batch_input_shape"))  # Keras 3's word, Keras 2's
    if isinstance(shape, list) and shape:
        shape[0] = None
        if len(shape) == 4 and size is not None:
            shape[1:3] = [side or given for side, given in zip(shape[1:3], size, strict=True)]
