from __future__ import annotations

import io
import tempfile
from dataclasses import dataclass, field
from datetime import timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from mbexport import catalog
from mbexport.artifact import read_reference
from mbexport.errors import ArtifactError, EngineError, InputError
from mbexport.operators.accounts import Accounts
from mbexport.operators.attribution import attribute
from mbexport.operators.table import MachineRates, OperatorTable, operators_of
from mbexport.operators.work import read_work, work_of
from mbexport.runtimes import SessionOptions, openvino_profile
from mbexport.runtimes.ort_profile import nodes_of
from mbexport.runtimes.profiled import EngineProfile, ProfiledNode, Watch, load_profiler
from mbexport_cli import render
from mbexport_cli.render.operators import operators as rendered
from tests.tiny import TinyNetwork, tiny_artifact

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from mbexport.artifact import Artifact
    from mbexport.quantities import Mode

PICTURE = {"input": (1, 8, 8, 3)}
ENGINES = ("ort", "openvino")


def graph(
    nodes: Sequence[onnx.NodeProto], shapes: dict[str, Sequence[int]], weights: dict[str, Sequence[int]], result: str
) -> onnx.ModelProto:
    """Inputs and zero weights by shape; one output of any shape."""
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    out = helper.make_tensor_value_info(result, TensorProto.FLOAT, None)
    arrays = {name: np.zeros(shape, np.float32) for name, shape in weights.items()}
    constants = [onnx.numpy_helper.from_array(array, name) for name, array in arrays.items()]
    made = helper.make_graph(nodes, "case", ends, [out], constants)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def profiled(name: str, operator: str, *times_s: float, origins: Sequence[str] = (), kernel: str = "k") -> ProfiledNode:
    return ProfiledNode(name, origins or [name], operator, kernel, [1], times_s or (1e-3,))


CASES: dict[str, tuple[onnx.NodeProto, dict[str, Sequence[int]], dict[str, Sequence[int]], int, str | None]] = {
    # 2 pictures x 6 channels x 3 x 3 places, each a sum of 3 x 3 places of 2 of the 4 channels
    "grouped": (
        helper.make_node("Conv", ["x", "w"], ["y"], name="n", group=2),
        {"x": (2, 4, 5, 5)},
        {"w": (6, 2, 3, 3)},
        2 * 6 * 3 * 3 * (3 * 3 * 2),
        "grouped",
    ),
    # 5 x 5 places padded by 2 with stride 2 leave 3 x 3
    "depthwise": (
        helper.make_node("Conv", ["x", "w"], ["y"], name="n", group=4, pads=[2] * 4, strides=[2, 2]),
        {"x": (1, 4, 5, 5)},
        {"w": (4, 1, 5, 5)},
        4 * 3 * 3 * 25,
        "depthwise",
    ),
    "pointwise": (
        helper.make_node("Conv", ["x", "w", "b"], ["y"], name="n"),
        {"x": (1, 4, 5, 5)},
        {"w": (7, 4, 1, 1), "b": (7,)},
        7 * 5 * 5 * 4,
        "1x1",
    ),
    # (5, 3) of a transposed (3, 5), times (3, 7)
    "gemm": (
        helper.make_node("Gemm", ["x", "w"], ["y"], name="n", transA=1),
        {"x": (3, 5)},
        {"w": (3, 7)},
        5 * 7 * 3,
        None,
    ),
    "matmul": (helper.make_node("MatMul", ["x", "w"], ["y"], name="n"), {"x": (2, 4, 3)}, {"w": (3, 6)}, 144, None),
    "relu": (helper.make_node("Relu", ["x"], ["y"], name="n"), {"x": (2, 4)}, {}, 0, None),
}


@pytest.mark.parametrize(("node", "shapes", "weights", "macs", "form"), CASES.values(), ids=CASES)
def test_multiply_accumulates_of_one_node(
    node: onnx.NodeProto, shapes: dict[str, Sequence[int]], weights: dict[str, Sequence[int]], macs: int, form: str
) -> None:
    found = work_of(graph([node], shapes, weights, "y"), shapes)
    assert (found.macs, found.nodes[0].form) == (macs, form)


def test_what_has_no_formula_is_not_guessed() -> None:
    transposed = helper.make_node("ConvTranspose", ["x", "w"], ["y"], name="n")
    assert work_of(graph([transposed], {"x": (1, 2, 3, 3)}, {"w": (2, 2, 3, 3)}, "y"), {"x": (1, 2, 3, 3)}).macs is None


def test_a_whole_network_counts_as_the_catalogue_does(small_artifact: Artifact) -> None:
    spec = small_artifact.manifest.spec
    assert spec is not None
    model = small_artifact.path / "model.onnx"
    assert read_work(model, {"input": (1, 64, 64, 3)}).macs == catalog.describe(spec).macs
    assert read_work(model, {"input": (3, 64, 64, 3)}).macs == 3 * catalog.describe(spec).macs


def test_inputs_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ArtifactError, match="does not take inputs of input 1x8x8: "):
        work_of(TinyNetwork().onnx_model(), {"input": (1, 8, 8)})


def test_bytes_are_counted_once_at_the_boundary() -> None:
    found = work_of(TinyNetwork().onnx_model(), PICTURE)
    _, conv, swish, *_ = found.nodes
    picture, kernel, result = 3 * 8 * 8, 8 * 3 * 3 * 3, 8 * 8 * 8
    assert found.moved_bytes([conv], 4) == 4 * (picture + kernel + result)
    assert found.moved_bytes([conv, swish], 4) == 4 * (picture + kernel + result)  # the inner tensor stays inside
    assert found.moved_bytes([swish], 2) == 2 * 2 * result


def residual() -> onnx.ModelProto:
    """x -> first -> active -> second -> sum with the first's result -> last -> y, with tensors named unlike nodes."""
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["a"], name="first"),
        helper.make_node("Relu", ["a"], ["b"], name="active"),
        helper.make_node("Conv", ["b", "w2"], ["c"], name="second"),
        helper.make_node("Add", ["a", "c"], ["d"], name="sum"),
        helper.make_node("Relu", ["d"], ["y"], name="last"),
    ]
    return graph(nodes, {"x": (1, 2, 4, 4)}, {"w1": (2, 2, 1, 1), "w2": (2, 2, 1, 1)}, "y")


MAP, KERNEL = 2 * 4 * 4, 2 * 2


def names(engine: Sequence[ProfiledNode]) -> list[list[str]]:
    return [[work.name for work in group] for group in attribute(work_of(residual(), {"x": (1, 2, 4, 4)}), engine)]


@pytest.mark.parametrize(
    ("engine", "expected"),
    [
        # named after what ends the fusion, a node or its result; the sum is the second product's
        (["b:Conv", "c:Conv", "last:Relu"], [["first", "active"], ["second", "sum"], ["last"]]),
        (["active:Conv", "y:FusedConv"], [["first", "active"], ["second", "sum", "last"]]),
        # the sum on its own
        (["b:Conv", "second:Conv", "sum:Add", "y:Relu"], [["first", "active"], ["second"], ["sum"], ["last"]]),
        # what the engine made up
        (["reorder:ReorderInput", "first:Conv", "odd:Conv"], [[], ["first"], []]),
        # two that claim one: the product is the one that is a product; of two alike, neither
        (["first:Reorder", "first:Convolution"], [[], ["first"]]),
        (["first:Conv", "first:Convolution"], [[], []]),
    ],
)
def test_engine_nodes_are_traced_back(engine: list[str], expected: list[list[str]]) -> None:
    pairs = [node.split(":") for node in engine]
    assert names([profiled(name, operator) for name, operator in pairs]) == expected


def test_a_fused_sum_reads_its_other_operand() -> None:
    work = work_of(residual(), {"x": (1, 2, 4, 4)})
    groups = attribute(work, [profiled("b", "Conv"), profiled("c", "Conv")])
    assert [work.moved_bytes(group, 4) for group in groups] == [4 * (3 * MAP + KERNEL), 4 * (3 * MAP + KERNEL)]


RATES = MachineRates(macs_per_s=256e3, bytes_per_s=1e6, stream_bytes=1)


def test_work_is_held_against_the_machine() -> None:
    nodes = [
        profiled("first", "Conv", 1e-3, 9.0, 1e-3, kernel="fast"),
        profiled("second", "Conv", 2e-3, 3e-3, 4e-3, kernel="slow"),
        profiled("made up", "Reorder", 1e-3, 1e-3, 1e-3),
        profiled("unknown", "Conv", 3e-3, 3e-3, 3e-3),
        profiled("last", "Relu", 2e-3, 2e-3, 2e-3),
    ]
    accounts = Accounts(EngineProfile(nodes, [1.0]), work_of(residual(), {"x": (1, 2, 4, 4)}), "bf16", RATES)
    rows = {(row.operator, row.form): row for row in accounts.rows()}
    assert accounts.operators_s == pytest.approx(10e-3)
    assert sum(row.share for row in rows.values()) == pytest.approx(1)
    conv = rows["Conv", "1x1"]
    assert (conv.nodes, conv.kernels, conv.macs) == (2, {"fast": 1, "slow": 1}, 2 * MAP * 2)
    assert conv.time_s == pytest.approx(4e-3)
    assert conv.moved_bytes == 2 * (2 * MAP + KERNEL) + 2 * (3 * MAP + KERNEL)  # the sum is the second's
    assert conv.macs_per_s == pytest.approx(128 / 4e-3)
    assert conv.arithmetic_share == pytest.approx(128 / 4e-3 / 256e3)
    assert conv.memory_share == pytest.approx(conv.moved_bytes / 4e-3 / 1e6)
    assert conv.bound == "arithmetic"
    assert (rows["Relu", None].macs, rows["Relu", None].bound) == (0, "memory")
    for unknown in (rows["Reorder", None], rows["Conv", None]):
        assert (unknown.macs, unknown.moved_bytes, unknown.bytes_per_s, unknown.bound) == (None, None, None, None)
    assert accounts.attributed_macs == 128
    assert [node.name for node in accounts.slowest(2)] == ["second", "unknown"]


def test_without_rates_of_the_machine_nothing_is_achieved() -> None:
    accounts = Accounts(
        EngineProfile([profiled("first", "Conv")], [1.0]), work_of(residual(), {"x": (1, 2, 4, 4)}), "f32", None
    )
    (row,) = accounts.rows()
    assert (row.macs, row.macs_per_s, row.arithmetic_share, row.bound) == (64, None, None, None)


def test_a_product_of_which_only_the_activation_is_known_has_no_count() -> None:
    nodes = [profiled("first", "Conv"), profiled("active", "Conv")]
    accounts = Accounts(EngineProfile(nodes, [1.0]), work_of(residual(), {"x": (1, 2, 4, 4)}), "f32", RATES)
    assert {node.name: node.macs for node in accounts.slowest(2)} == {"first": 64, "active": None}


def event(name: str, ts: int, dur: int, **told: Any) -> dict[str, Any]:
    if name == "model_run":
        return {"cat": "Session", "name": name, "ts": ts, "dur": dur, "args": {}}
    usual = {
        "op_name": "Conv",
        "provider": "CPUExecutionProvider",
        "node_index": "1",
        "output_type_shape": [{"float": [1, 2]}],
    }
    return {"cat": "Node", "name": f"{name}_kernel_time", "ts": ts, "dur": dur, "args": {**usual, **told}}


def test_a_trace_without_its_warm_up() -> None:
    runs = [
        [
            event("model_run", start, 90),
            event("a/Relu_nchwc", start + 5, took),
            event("Add_token_4", start + 50, 7, op_name="Add"),
        ]
        for start, took in ((0, 99), (100, 30), (200, 20))
    ]
    found = nodes_of([*runs[2], *runs[0], *runs[1]], 2)
    assert [(node.operator, [*node.origins], node.shape) for node in found] == [
        ("Conv", ["a/Relu"], [1, 2]),
        ("Add", ["Add"], [1, 2]),
    ]
    assert found[0].times_s == pytest.approx([30e-6, 20e-6])
    with pytest.raises(EngineError, match="holds 3 runs, not the 4"):
        nodes_of([*runs[0], *runs[1], *runs[2]], 4)


@dataclass
class Averaging:
    """A compiled model and its request, whose one node takes ten times as long while it warms up; OpenVINO tells the
    whole microseconds of the average over all runs."""

    runs_us: list[int] = field(default_factory=list)

    def create_infer_request(self) -> Self:
        return self

    def infer(self, _: object) -> None:
        self.runs_us.append(200 if len(self.runs_us) < 5 else 20)

    @property
    def profiling_info(self) -> list[SimpleNamespace]:
        average = timedelta(microseconds=sum(self.runs_us) // len(self.runs_us))
        return [SimpleNamespace(node_name="a", node_type="Softmax", exec_type="jit", real_time=average)]


def test_openvino_averages_without_their_warm_up() -> None:
    ((_, _, _, time_s),), run_s = openvino_profile._block(Averaging(), [{}])
    assert time_s == pytest.approx(20e-6, abs=1.5e-6)
    assert len(run_s) == 10


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this process and those that it starts make temporary files."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return folder


@pytest.mark.parametrize("engine", ENGINES)
def test_nodes_take_no_longer_than_the_runs(
    engine: str, small_artifact: Artifact, temporary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    working = tmp_path / "working"
    working.mkdir()
    monkeypatch.chdir(working)
    feeds = {name: np.repeat(array[:1], 8, axis=0) for name, array in read_reference(small_artifact).inputs.items()}
    model = small_artifact.model_path(engine)
    profile = load_profiler(engine)(model, "cpu", SessionOptions(threads=1, batch=8), [feeds], Watch(10, 60.0))
    assert len(profile.run_s) >= 10
    assert {len(node.times_s) for node in profile.nodes} <= {len(profile.run_s), len(profile.run_s) // 10}
    total_s = sum(sum(node.times_s) / len(node.times_s) for node in profile.nodes)
    mean_s = sum(profile.run_s) / len(profile.run_s)
    rounding_s = 1.5e-6 * len(profile.nodes)
    assert 0.1 * mean_s < total_s < mean_s + rounding_s
    assert list(working.iterdir()) == []
    assert list(temporary.iterdir()) == []


def test_the_trace_is_gone_after_an_error_too(tmp_path: Path, temporary: Path) -> None:
    model = tiny_artifact(tmp_path).path / "model.onnx"
    with pytest.raises(EngineError, match=r"cannot profile model\.onnx"):
        load_profiler("ort")(
            model, "cpu", SessionOptions(), [{"input": np.zeros((1, 8, 8, 4), np.float32)}], Watch(3, 1)
        )
    assert list(temporary.iterdir()) == []


def test_only_engines_with_a_profiler() -> None:
    with pytest.raises(InputError, match="from ort and openvino, not from double"):
        load_profiler("double")


def lines(table: OperatorTable) -> list[str]:
    stream = io.StringIO()
    render.write(rendered(table), stream)
    return stream.getvalue().splitlines()


@pytest.mark.parametrize(
    ("target", "mode"), [("ort:cpu", "parity"), ("openvino:cpu", "parity"), ("openvino:cpu", "production")]
)
def test_the_table_of_a_real_network(target: str, mode: Mode, small_artifact: Artifact, temporary: Path) -> None:
    table = operators_of(small_artifact, target, mode, 1, 2)
    assert small_artifact.manifest.spec is not None
    assert table.macs == table.attributed_macs == 2 * catalog.describe(small_artifact.manifest.spec).macs
    assert sum(row.share for row in table.rows) == pytest.approx(1)
    assert sum(row.time_s for row in table.rows) == pytest.approx(table.operators_s)
    assert table.coverage == pytest.approx(table.operators_s / table.plain_p50_s)
    assert sum(row.macs or 0 for row in table.rows) == table.macs
    made_of = [name for node in table.slowest for name in node.made_of]
    assert len(made_of) == len(set(made_of)) > 0
    assert [node.time_s for node in table.slowest] == sorted((node.time_s for node in table.slowest), reverse=True)
    assert table.rates is not None
    assert list(temporary.iterdir()) == []
    text = lines(table)
    types = text[: next(number for number, line in enumerate(text) if line.startswith("slowest nodes"))]
    assert max(map(len, types)) <= 80
    assert all(any(line.startswith(row.operator) for line in types) for row in table.rows)
    assert any(f"{table.coverage:.0%} of the plain median" in line for line in text)


def test_every_node_of_the_file_goes_into_one_at_most(small_artifact: Artifact) -> None:
    feeds = {name: array[:1] for name, array in read_reference(small_artifact).inputs.items()}
    model = small_artifact.path / "model.onnx"
    work = read_work(model, {name: array.shape for name, array in feeds.items()})
    for engine in ENGINES:
        nodes = load_profiler(engine)(model, "cpu", SessionOptions(threads=1), [feeds], Watch(3, 60.0)).nodes
        groups = attribute(work, nodes)
        found = [node.name for group in groups for node in group]
        assert len(found) == len(set(found))
        assert {node.name for node in work.nodes if node.macs} <= set(found)
        # one convolution or product of the file in each of the engine's
        assert {sum(1 for node in group if node.macs) for group in groups} <= {0, 1}
