"""Labels for pictures: python infer.py PICTURE... (needs NumPy, Pillow, and onnxruntime or openvino)."""

import json
import sys
from importlib import import_module, util
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

serving = json.loads(Path(__file__).with_name("bundle.json").read_bytes())["serving"]
run = next((one for one in serving if util.find_spec(one["package"])), None) or sys.exit("no engine is here")
engine, model = import_module(run["package"]), Path(__file__).parent / run["model"]
manifest = json.loads(model.with_name("manifest.json").read_bytes())
names = [one["name"] for file in model.parent.glob("labels.json") for one in json.loads(file.read_bytes())["labels"]]
taken, given = manifest["input"], min(manifest["outputs"], key=lambda one: one["kind"] == "features")
shape = batch, *sides = [side or usual for side, usual in zip(taken["shape"], (1, 224, 224, 224), strict=True)]
height, width, channels = sides if taken["layout"] == "nhwc" else (*sides[1:], sides[0])
crop, shorter = np.array([width, height]), taken["resize_px"] or round(min(width, height) / 0.875)
if run["engine"] == "openvino":
    network = engine.Core().read_model(model)
    network.reshape(shape)
    session = engine.compile_model(network, run["device"], run["settings"])
else:
    options = engine.SessionOptions()
    for key, value in run["settings"].items():
        options.add_session_config_entry(key, value) if "." in key else setattr(options, key, int(value))
    session = engine.InferenceSession(model, options, providers=[run["device"]])
for picture in sys.argv[1:] or sys.exit(__doc__):
    try:
        shown = ImageOps.exif_transpose(Image.open(picture)).convert("RGB" if channels == 3 else "L")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        sys.exit(f"{picture} cannot be read: {error}")
    size = [round(side * max(shorter * crop / min(crop) / shown.size)) for side in shown.size]
    corner = (np.array(size) - crop) // 2
    shown = shown.resize(size, Image.Resampling.BILINEAR).crop([*corner, *(corner + crop)])
    values = (np.asarray(shown, "float32").reshape(1, height, width, channels) - taken["mean"]) / taken["scale"]
    values = values[..., :: -1 if taken["colour_order"] == "BGR" else 1].repeat(batch, axis=0).astype(taken["type"])
    values = np.ascontiguousarray(values if taken["layout"] == "nhwc" else values.transpose(0, 3, 1, 2))
    feed, name = {taken["name"]: values}, given["name"]
    found = (session(feed)[name] if run["engine"] == "openvino" else session.run([name], feed)[0])[0]
    best = () if given["kind"] == "features" else np.argsort(-found, kind="stable")[:5]
    print(f"{picture}:", "  ".join(f"{found[at]:.4f} {names[at] if names else at}" for at in best) or found.shape)
