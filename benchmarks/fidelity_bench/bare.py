"""The shortest honest loop around an engine, without a line of mbexport: ``python bare.py ENGINE MODEL SECONDS``.

Prints the median of the calls in seconds. One thread, float32, batch 1, one picture of noise; warmed up for as long as
a fifth of the time.
"""

import statistics
import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def openvino_call(model: str, picture: "NDArray[Any]") -> Any:
    import openvino as ov

    core = ov.Core()
    network = core.read_model(model)
    network.reshape([1, *picture.shape[1:]])
    options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    request = core.compile_model(network, "CPU", options).create_infer_request()
    request.set_input_tensor(ov.Tensor(picture, shared_memory=True))
    return request.infer


def ort_call(model: str, picture: "NDArray[Any]") -> Any:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda: session.run(None, {name: picture})


def main() -> None:
    engine, model, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
    side = int(sys.argv[4])
    picture = np.random.default_rng(0).uniform(0, 255, (1, side, side, 3)).astype(np.float32)
    call = {"openvino": openvino_call, "ort": ort_call}[engine](model, picture)
    samples: list[float] = []
    for span in (seconds / 5, seconds):
        samples.clear()
        end = time.perf_counter() + span
        while time.perf_counter() < end:
            start = time.perf_counter()
            call()
            samples.append(time.perf_counter() - start)
    print(statistics.median(samples))


if __name__ == "__main__":
    main()
