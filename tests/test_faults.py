"""The library of faults: each is a single one, does what its name says, and stands where it says it stands."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from fault_bench import answers, inputs, operators, weights
from fault_bench.batch_norms import batch_norms_of
from fault_bench.draft import BatchNorm, Correct
from fault_bench.effect import Effect, effect_of, faulty_artifact
from fault_bench.library import ALL, SESSIONS
from mbexport.artifact import read_artifact, read_reference
from mbexport.build import build_model
from mbexport.compare import centred_log, sqnr_db
from mbexport.outputs import threshold_db
from mbexport.runtimes import SessionOptions
from mbexport.runtimes.ort import OrtRuntime
from mbexport.runtimes.ort_calls import run_unoptimized
from mbexport.spec import ModelSpec
from tests.conftest import SMALL

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from fault_bench.fault import Fault, Injected
    from mbexport.artifact import Artifact

SPECS = {
    "large": ModelSpec(variant="large", alpha=0.35, height=64, width=64, classes=10),
    "small": SMALL,
    "minimalistic": ModelSpec(variant="small", minimalistic=True, alpha=0.35, height=64, width=64, classes=10),
    "v2": ModelSpec(variant="v2", alpha=0.35, height=64, width=64, classes=10),
}
WITH_HARD_SWISH = {"large", "small"}
V3 = {"large", "small", "minimalistic"}
PLACES = {
    operators.hard_sigmoid: WITH_HARD_SWISH,
    operators.swish: WITH_HARD_SWISH,
    operators.rounded_sixth: WITH_HARD_SWISH,
    operators.no_excitation: WITH_HARD_SWISH,
    operators.active_dropout: V3,
    operators.relu_for_relu6: {"v2"},
}
"""The networks that have a place for a fault, where not all have."""
UNCHANGED = "/right"
"""Ends the name of a right result that an inserted node goes on to change."""


@dataclass(frozen=True)
class Network:
    artifact: Artifact
    correct: Correct

    @property
    def pictures(self) -> Mapping[str, NDArray[np.float32]]:
        return read_reference(self.artifact).inputs

    @property
    def limit_db(self) -> float:
        (output,) = self.artifact.manifest.outputs
        return threshold_db(output, read_reference(self.artifact))


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory, small_artifact: Artifact) -> dict[str, Network]:
    from mbexport.pipeline import build

    found = {}
    for name, spec in SPECS.items():
        whole = small_artifact if spec is SMALL else build(spec, out=tmp_path_factory.mktemp(name)).artifact
        correct = Correct(onnx.load(whole.model_path("ort:cpu")), batch_norms_of(build_model(spec).model))
        found[name] = Network(whole, correct)
    return found


@pytest.fixture(params=SPECS)
def network(request: pytest.FixtureRequest, networks: dict[str, Network]) -> Network:
    return networks[request.param]


def injected(fault: Fault, network: Network, seed: int = 1) -> Injected:
    found = fault.inject(network.correct, np.random.default_rng(seed))
    assert found is not None
    return found


def every_tensor(model: onnx.ModelProto, pictures: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Each node's result by name."""
    exposed = onnx.ModelProto()
    exposed.CopyFrom(model)
    there = {output.name for output in model.graph.output}
    names = [name for node in model.graph.node for name in node.output if name not in there]
    exposed.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    return run_unoptimized(exposed, pictures)


def constants(model: onnx.ModelProto) -> dict[str, NDArray[Any]]:
    return {constant.name: numpy_helper.to_array(constant) for constant in model.graph.initializer}


def same_answers_db(network: Network, faulty: onnx.ModelProto, other_pictures: NDArray[np.float32]) -> float:
    """The faulty model on its pictures against the right model on others."""
    name = next(iter(network.pictures))
    right, wrong = (
        run_unoptimized(network.correct.model, {name: other_pictures}),
        run_unoptimized(faulty, network.pictures),
    )
    return sqnr_db(centred_log(right["predictions"]), centred_log(wrong["predictions"]))


def test_kinds_have_names_of_their_own() -> None:
    names = [fault.name for fault in (*ALL, *SESSIONS)]
    assert len(set(names)) == len(names) >= 23


@pytest.mark.parametrize("fault", ALL, ids=lambda fault: fault.name)
def test_networks_with_a_place_for_it(fault: Fault, networks: dict[str, Network]) -> None:
    rng = np.random.default_rng(0)
    found = {name for name, network in networks.items() if fault.inject(network.correct, rng) is not None}
    assert found == PLACES.get(fault, set(SPECS))


@pytest.mark.parametrize("fault", ALL, ids=lambda fault: fault.name)
def test_every_fault_shows_first_where_it_stands(fault: Fault, networks: dict[str, Network]) -> None:
    for name in PLACES.get(fault, set(SPECS)):
        network = networks[name]
        found = injected(fault, network)
        onnx.checker.check_model(found.model, full_check=fault is not answers.stale_batch)
        effect = effect_of(network.correct.model, found.model, network.pictures)
        assert effect.sqnr_db < network.limit_db
        if fault is answers.stale_batch:  # it does not run, so the runtime names the node
            assert any(f"'{culprit}'" in (effect.reason or "") for culprit in found.culprits)
            continue
        right = every_tensor(network.correct.model, network.pictures)
        wrong = every_tensor(found.model, network.pictures)
        maker = {tensor: node.name for node in network.correct.model.graph.node for tensor in node.output}
        first = next(tensor for tensor in maker if not np.array_equal(right[tensor], wrong[tensor]))
        assert maker[first] in found.culprits


@pytest.mark.parametrize("fault", ALL, ids=lambda fault: fault.name)
def test_all_but_the_fault_is_untouched(fault: Fault, networks: dict[str, Network]) -> None:
    network = networks[min(PLACES.get(fault, set(SPECS)))]
    model = network.correct.model
    before = model.SerializeToString(deterministic=True)
    found = injected(fault, network)
    assert model.SerializeToString(deterministic=True) == before
    for field in ("input", "output"):
        assert list(getattr(found.model.graph, field)) == list(getattr(model.graph, field))
    assert list(found.model.metadata_props) == list(model.metadata_props)
    assert list(found.model.opset_import) == list(model.opset_import)
    right, wrong = constants(model), constants(found.model)
    altered = [name for name in right if name not in wrong or not np.array_equal(right[name], wrong[name])]
    assert len(altered) <= 2
    nodes = {node.name: node for node in found.model.graph.node}
    others = [node.name for node in model.graph.node if nodes.pop(node.name) != node]
    assert len(others) <= 1
    assert set(others) | set(nodes) <= found.culprits
    readers = {name: {node.name for node in model.graph.node if name in node.input} for name in altered}
    folded = {"conv/Conv"} if fault is inputs.missing_rescaling else set()  # Rescaling's scale is in its kernel
    assert all(near & (found.culprits | folded) for near in readers.values())


@pytest.mark.parametrize("fault", [weights.kernel_noise, answers.mixed_up_batch], ids=lambda fault: fault.name)
def test_the_seed_draws_the_place(fault: Fault, networks: dict[str, Network]) -> None:
    network = networks["minimalistic"]
    assert injected(fault, network, 3).model == injected(fault, network, 3).model
    assert len({injected(fault, network, seed).culprits for seed in range(10)}) > 5


@pytest.mark.parametrize(
    ("fault", "change"),
    [
        (inputs.input_scale, lambda pictures: pictures * np.float32(1.01)),
        (inputs.missing_rescaling, lambda pictures: pictures * np.float32(127.5) + np.float32(127.5)),
        (inputs.doubled_rescaling, lambda pictures: pictures / np.float32(127.5) - np.float32(1)),
        (inputs.bgr, lambda pictures: np.ascontiguousarray(pictures[..., ::-1])),
    ],
)
def test_faults_of_the_input_are_other_pictures(
    fault: Fault, change: Callable[[NDArray[np.float32]], NDArray[np.float32]], network: Network
) -> None:
    (pictures,) = network.pictures.values()
    assert same_answers_db(network, injected(fault, network).model, change(pictures)) > network.limit_db


def six_capped(x: NDArray[np.float64], slope: float = 1 / 6) -> NDArray[np.float64]:
    return np.clip(x * slope + 0.5, 0, 1)


@pytest.mark.parametrize(
    ("fault", "name", "formula"),
    [
        (operators.hard_sigmoid, "small", six_capped),
        (operators.swish, "small", lambda x: x / (1 + np.exp(-x))),
        (operators.rounded_sixth, "small", lambda x: x * six_capped(x, 0.1667)),
        (operators.relu_for_relu6, "v2", lambda x: np.maximum(x, 0)),
    ],
)
def test_activations_become_what_is_said(
    fault: Fault, name: str, formula: Callable[[NDArray[np.float64]], NDArray[np.float64]], networks: dict[str, Network]
) -> None:
    network = networks[name]
    found = injected(fault, network)
    tensors = every_tensor(found.model, network.pictures)
    (node,) = (node for node in network.correct.model.graph.node if node.name in found.culprits)
    expected = formula(tensors[node.input[0]].astype(np.float64))
    np.testing.assert_allclose(tensors[node.output[0]], expected, rtol=1e-5, atol=1e-6)


def test_epsilon_is_what_keras_gives_with_it(network: Network) -> None:
    found = injected(weights.batch_norm_epsilon, network, 4)
    spec = network.artifact.manifest.spec
    assert spec is not None
    model = build_model(spec).model
    (name,) = found.layers
    norm = next(layer for layer in model.layers if getattr(layer, "epsilon", None) and fed_by(layer) == name)
    norm.epsilon = 1e-5
    (pictures,) = network.pictures.values()
    keras = centred_log(np.asarray(model(pictures, training=False)))
    faulty, right = (
        centred_log(run_unoptimized(m, network.pictures)["predictions"]) for m in (found.model, network.correct.model)
    )
    assert sqnr_db(keras, faulty) > network.limit_db > sqnr_db(keras, right)


def fed_by(layer: Any) -> str:
    name: str = layer.input._keras_history.operation.name
    return name


def test_epsilon_without_variances_has_no_place(networks: dict[str, Network]) -> None:
    bare = Correct(networks["v2"].correct.model)
    assert weights.batch_norm_epsilon.inject(bare, np.random.default_rng(0)) is None


def altered_kernel(fault: Fault, network: Network) -> tuple[NDArray[Any], NDArray[Any]]:
    """The one kernel that a fault alters, right and wrong."""
    right, wrong = constants(network.correct.model), constants(injected(fault, network).model)
    (name,) = (name for name in right if name.endswith("kernel") and not np.array_equal(right[name], wrong[name]))
    return right[name], wrong[name]


def test_kernels_become_what_is_said(network: Network) -> None:
    right, wrong = altered_kernel(weights.transposed_depthwise, network)
    assert right.shape[1] == 1
    np.testing.assert_array_equal(wrong, right.transpose(0, 1, 3, 2))
    right, wrong = altered_kernel(weights.kernel_noise, network)
    assert sqnr_db(right, wrong) == pytest.approx(40, abs=1)
    right, wrong = altered_kernel(weights.half_precision, network)
    np.testing.assert_array_equal(wrong, right.astype(np.float16).astype(np.float32))
    right, wrong = altered_kernel(weights.not_a_number, network)
    assert np.count_nonzero(right != wrong) == np.isnan(wrong).sum() == 1
    right, wrong = altered_kernel(weights.swapped_channels, network)
    first, second = np.flatnonzero((right != wrong).any(axis=(1, 2, 3)))
    np.testing.assert_array_equal(right[[first, second]], wrong[[second, first]])


def test_swapped_channels_take_their_bias_along(networks: dict[str, Network]) -> None:
    network = networks["small"]
    found = injected(weights.swapped_channels, network)
    right, wrong = (every_tensor(model, network.pictures) for model in (network.correct.model, found.model))
    (culprit,) = found.culprits
    moved = np.flatnonzero((right[culprit] != wrong[culprit]).any(axis=(0, 2, 3)))
    assert len(moved) == 2
    np.testing.assert_array_equal(right[culprit][:, moved], wrong[culprit][:, moved[::-1]])


def test_dropped_bias_is_one_of_zeros(network: Network) -> None:
    found = injected(weights.dropped_bias, network)
    zeroed = onnx.ModelProto()
    zeroed.CopyFrom(network.correct.model)
    (culprit,) = found.culprits
    node = next(node for node in zeroed.graph.node if node.name == culprit)
    bias = next(constant for constant in zeroed.graph.initializer if constant.name == node.input[2])
    bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) * 0, bias.name))
    assert effect_of(zeroed, found.model, network.pictures).sqnr_db > network.limit_db


def test_padding_goes_in_front(network: Network) -> None:
    """Written out in NumPy: the rows and columns of zeros that stood behind the map stand before it, and vice versa."""
    found = injected(operators.padding_side, network)
    tensors = every_tensor(found.model, network.pictures)
    right = next(node for node in network.correct.model.graph.node if node.name in found.culprits)
    kernel, bias = (constants(found.model)[name] for name in right.input[1:])
    (pads,) = (entry.ints for entry in right.attribute if entry.name == "pads")
    top, left, bottom, end = pads
    assert (top, left) < (bottom, end)
    padded = np.pad(tensors[right.input[0]], ((0, 0), (0, 0), (bottom, top), (end, left)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, kernel.shape[2:], axis=(2, 3))[:, :, ::2, ::2]
    if kernel.shape[1] == 1:
        expected = np.einsum("nchwij,cij->nchw", windows, kernel[:, 0])
    else:
        expected = np.einsum("nihwjk,oijk->nohw", windows, kernel)
    np.testing.assert_allclose(tensors[right.output[0]], expected + bias[:, None, None], rtol=1e-3, atol=1e-4)


def test_excitation_bypassed_is_a_gate_of_one(networks: dict[str, Network]) -> None:
    network = networks["large"]
    found = injected(operators.no_excitation, network)
    tensors = every_tensor(found.model, network.pictures)
    mul = next(node for node in network.correct.model.graph.node if node.name in found.culprits)
    data, gate = (tensors[name] for name in mul.input)
    assert gate.shape[2:] == (1, 1) != data.shape[2:]
    np.testing.assert_array_equal(tensors[mul.output[0]], data)


def test_dropout_drops_a_fifth_and_scales_the_rest(networks: dict[str, Network]) -> None:
    network = networks["small"]
    found = injected(operators.active_dropout, network)
    tensors = every_tensor(found.model, network.pictures)
    (name,) = (name.removesuffix(UNCHANGED) for name in tensors if name.endswith(UNCHANGED))
    right, wrong = tensors[name + UNCHANGED], tensors[name]
    alive = right != 0
    kept = alive & (wrong != 0)
    assert 1 - kept.sum() / alive.sum() == pytest.approx(0.2, abs=0.05)
    np.testing.assert_allclose(wrong[kept], right[kept] / 0.8, rtol=1e-6)


def test_answers_stand_elsewhere(network: Network) -> None:
    right = run_unoptimized(network.correct.model, network.pictures)["predictions"]
    shifted = run_unoptimized(injected(answers.shifted_classes, network).model, network.pictures)["predictions"]
    np.testing.assert_allclose(shifted, np.roll(right, 1, axis=1), rtol=1e-6)
    over_batch = run_unoptimized(injected(operators.softmax_axis, network).model, network.pictures)["predictions"]
    np.testing.assert_allclose(over_batch.sum(axis=0), 1, rtol=1e-6)


@pytest.mark.parametrize("fault", [answers.mixed_up_batch, answers.stale_batch], ids=lambda fault: fault.name)
def test_faults_of_the_batch_change_nothing_of_a_single_picture(fault: Fault, network: Network) -> None:
    single = {name: array[:1] for name, array in network.pictures.items()}
    assert effect_of(network.correct.model, injected(fault, network).model, single) == Effect(math.inf)


def test_mixed_up_batch_is_in_reverse_order(networks: dict[str, Network]) -> None:
    network = networks["v2"]
    found = injected(answers.mixed_up_batch, network)
    tensors = every_tensor(found.model, network.pictures)
    (name,) = (name.removesuffix(UNCHANGED) for name in tensors if name.endswith(UNCHANGED))
    np.testing.assert_array_equal(tensors[name], tensors[name + UNCHANGED][::-1])


def test_effect_of_a_nan_is_no_number(network: Network) -> None:
    effect = effect_of(network.correct.model, injected(weights.not_a_number, network).model, network.pictures)
    assert effect.sqnr_db == -math.inf
    assert "not finite" in (effect.reason or "")


def test_no_fault_has_no_effect(network: Network) -> None:
    assert effect_of(network.correct.model, network.correct.model, network.pictures) == Effect(math.inf)


def test_artifact_with_a_fault_reads_as_a_whole_one(networks: dict[str, Network], tmp_path: Path) -> None:
    network = networks["v2"]
    found = injected(weights.kernel_noise, network)
    wrong = read_artifact(faulty_artifact(network.artifact, found, tmp_path / "wrong").path)
    assert onnx.load(wrong.model_path("openvino:cpu")) == found.model
    assert wrong.sha256 != network.artifact.sha256
    assert wrong.manifest.input == network.artifact.manifest.input
    for name, answer in read_reference(network.artifact).keras_float64.items():
        np.testing.assert_array_equal(read_reference(wrong).keras_float64[name], answer)


def test_uninitialised_output_has_the_right_shape_and_any_numbers(small_artifact: Artifact) -> None:
    (fault,) = SESSIONS
    pictures = read_reference(small_artifact).inputs
    opened = OrtRuntime().open(small_artifact.model_path("ort:cpu"), "cpu", SessionOptions(threads=1))
    names = [output.name for output in small_artifact.manifest.outputs]
    with fault.wrap(opened, np.random.default_rng(0), names) as session:
        first, second = session.run(pictures), session.run(pictures)
        assert session.facts() == opened.facts()
        (right,), (wrong,) = opened.run(pictures).values(), first.values()
    assert (wrong.shape, wrong.dtype) == (right.shape, right.dtype)
    assert not np.isclose(wrong, right).any()
    assert wrong.tobytes() != next(iter(second.values())).tobytes()


def test_batch_norms_reproduce_the_folded_bias(network: Network) -> None:
    """bias' = beta - mean gamma / sqrt(variance + 1e-3), from Keras's own numbers."""
    spec = network.artifact.manifest.spec
    assert spec is not None
    model = build_model(spec).model
    norms: Mapping[str, BatchNorm] = network.correct.batch_norms
    found = constants(network.correct.model)
    layers = {fed_by(layer): layer for layer in model.layers if getattr(layer, "epsilon", None)}
    assert {f"{name}/Conv" for name in layers} == set(norms)
    for name, layer in layers.items():
        mean, gamma = (np.asarray(weight, np.float64) for weight in (layer.moving_mean, layer.gamma))
        norm = norms[f"{name}/Conv"]
        bias = norm.beta - mean * gamma / np.sqrt(norm.variance + layer.epsilon)
        np.testing.assert_allclose(found[f"{name}/bias"], bias, rtol=1e-4, atol=1e-4)
