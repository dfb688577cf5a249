"""Labels for pictures: python infer.py PICTURE... (needs NumPy, Pillow, and onnxruntime or openvino)."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

HERE = Path(__file__).resolve().parent
SERVING = json.loads((HERE / "bundle.json").read_text("utf-8"))["serving"]
RUN = next((one for one in SERVING if importlib.util.find_spec(one["package"])), None) or sys.exit("no engine is here")
MODEL = HERE / RUN["model"]
MANIFEST, LABELS = json.loads((MODEL.parent / "manifest.json").read_text("utf-8")), MODEL.parent / "labels.json"
INPUT, OUTPUT = MANIFEST["input"], min(MANIFEST["outputs"], key=lambda output: output["kind"] == "features")
NAMES = [label["name"] for label in json.loads(LABELS.read_text("utf-8"))["labels"]] if LABELS.exists() else []


def network_input(path):
    """Made to cover, cropped at the centre, scaled and laid out as the contract in manifest.json says."""
    batch, *sides = INPUT["shape"]
    height, width, channels = sides if INPUT["layout"] == "nhwc" else [*sides[1:], sides[0]]
    size = np.array([width or 224, height or 224])
    shown = ImageOps.exif_transpose(Image.open(path)).convert("RGB" if channels == 3 else "L")
    shorter = INPUT["resize_px"] or round(min(size) / 0.875)
    scale = max(shorter * size / min(size) / shown.size)
    shown = shown.resize([round(side * scale) for side in shown.size], Image.Resampling.BILINEAR)
    corner = (np.array(shown.size) - size) // 2
    values = np.asarray(shown.crop([*corner, *(corner + size)])).reshape(1, size[1], size[0], channels)
    values = values[..., :: -1 if INPUT["colour_order"] == "BGR" else 1]
    if INPUT["type"] == "float32":
        values = (values.astype(np.float32) - np.float32(INPUT["mean"])) / np.float32(INPUT["scale"])
    values = values if INPUT["layout"] == "nhwc" else values.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(values.repeat(batch or 1, axis=0))


def answers(values):
    """The first output, on the engine and with the settings that the bundle names."""
    if RUN["engine"] == "openvino":
        core = importlib.import_module("openvino").Core()
        network = core.read_model(MODEL)
        network.reshape(values.shape)
        return core.compile_model(network, RUN["device"], RUN["settings"])(values)[OUTPUT["name"]]
    ort = importlib.import_module("onnxruntime")
    options = ort.SessionOptions()
    for key, value in RUN["settings"].items():
        options.add_session_config_entry(key, value) if "." in key else setattr(options, key, int(value))
    session = ort.InferenceSession(MODEL, options, providers=[RUN["device"]])
    return session.run([OUTPUT["name"]], {INPUT["name"]: values})[0]


for picture in sys.argv[1:] or sys.exit(__doc__):
    found = answers(network_input(picture))[0]
    best = () if OUTPUT["kind"] == "features" else np.argsort(-found, kind="stable")[:5]
    told = [f"{found[at]:.4f} {NAMES[at] if NAMES else at}" for at in best] or [f"features {found.shape}"]
    print(f"{picture}: {'  '.join(told)}")
