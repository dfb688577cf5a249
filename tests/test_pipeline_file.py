"""The pipeline file: every fault in it is told, where it stands, and what is right becomes cells, gates and outputs."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
from PIL import Image

from mbexport.errors import InputError, PipelineFileError
from mbexport.pipelines.document import PipelineDocument
from mbexport.pipelines.file import read_pipeline
from mbexport.pipelines.placing import placed
from mbexport.pipelines.positions import Positions
from tests.test_cli_results import invoke

EXAMPLES = Path(__file__).parents[1] / "examples"
TOO_NARROW = "alpha must be at least 0.01, not 0.001: below it every layer is at Keras's floor of 8 channels"
LOST = "does not exist; give 'random' or the path of a Keras weights file"
WHOLE = """
images = "val"

[gates]
min_top1 = 0.5
max_size_mb = 20

[[cells]]
variant = ["small", "large"]
alpha = [0.75, 1]
resolution = [160, "192x224"]
precision = ["f32", "int8"]

[[cells]]
model = "mobilenet_v2_1.0_224"
seed = 3
gates = { max_size_mb = 15 }

[[outputs]]
path = "dist/{network}.zip"
publish = "file:///models/{network}.zip"

[[outputs]]
kind = "triton"
path = "dist/triton"
cells = ["*small*_int8"]
"""


def written(folder: Path, text: str) -> Path:
    (folder / "val" / "n01440764").mkdir(parents=True, exist_ok=True)  # tench
    (folder / "base").mkdir(exist_ok=True)
    for number in range(16):
        Image.new("RGB", (8, 8)).save(folder / "val" / "n01440764" / f"{number}.png")
    path = folder / "mbexport.toml"
    path.write_text(text, encoding="utf-8")
    return path


def faults(folder: Path, text: str) -> list[str]:
    """Line, column and text of each."""
    with pytest.raises(PipelineFileError) as raised:
        read_pipeline(written(folder, text))
    prefix = f"{folder / 'mbexport.toml'}:"
    lines = str(raised.value).splitlines()
    assert all(line.startswith(prefix) for line in lines)
    return [line.removeprefix(prefix) for line in lines]


def test_cells_gates_and_outputs(tmp_path: Path) -> None:
    pipeline = read_pipeline(written(tmp_path, WHOLE))
    names = [wanted.cell.name for wanted in pipeline.cells]
    assert len(names) == 17
    assert names[0] == "mobilenet_v3_small_0.75_160"
    assert "mobilenet_v3_large_1.0_192x224_int8" in names
    assert [wanted.cell.precision for wanted in pipeline.cells] == ["f32"] * 9 + ["int8"] * 8
    by_name = {wanted.cell.name: wanted for wanted in pipeline.cells}
    assert by_name["mobilenet_v2_1.0_224"].cell.seed == 3
    assert by_name["mobilenet_v2_1.0_224"].gates.max_size_mb == 15
    assert by_name["mobilenet_v2_1.0_224"].gates.min_top1 == 0.5, "of the file, where the table says nothing"
    assert by_name[names[0]].gates.max_size_mb == 20
    assert pipeline.images == tmp_path / "val"
    bundles = [output for output in pipeline.outputs if output.kind == "bundle"]
    assert len(bundles) == 9, "an int8 artifact goes into one bundle with its float32 one"
    assert bundles[0].cells == ("mobilenet_v3_small_0.75_160", "mobilenet_v3_small_0.75_160_int8")
    assert bundles[0].publish == "file:///models/mobilenet_v3_small_0.75_160.zip"
    (triton,) = (output for output in pipeline.outputs if output.kind == "triton")
    assert set(triton.cells) == {name for name in names if "small" in name and name.endswith("int8")}


def test_every_fault_is_told_where_it_stands(tmp_path: Path) -> None:
    text = """# a comment
out = 3
runtimes = ["ort:cpu", "opnvino:cpu"]

[gates]
p99_ms = { here = -1 }
min_top1 = 0.7

[[cells]]
variant = ["small", "medium"]
alpha = [
  0.75,
  "x",
]
resolutoin = 224

[[cells]]
variant = "small"
alpha = 0.001
precision = ["f32", "int8"]

[[cells]]
variant = "v2"
  weights = "lost.weights.h5"

[[outputs]]
kind = "zip"
"""
    assert faults(tmp_path, text) == [
        "2:1: out: expected `str`, got `int`",
        "3:1: runtimes[1]: unknown runtime 'opnvino:cpu'; did you mean openvino:cpu?",
        "6:1: gates.p99_ms: expected `float` > 0.0",
        "7:1: gates.min_top1: accuracy is judged on labelled pictures: give images",
        "10:1: cells[0].variant[1]: invalid enum value 'medium'; known: large, small, v2",
        "11:1: cells[0].alpha[1]: expected `float`, got `str`",
        "15:1: cells[0].resolutoin: unknown key; did you mean resolution?",
        f"19:1: cells[1].alpha: {TOO_NARROW}",
        "20:1: cells[1].precision: int8 and f16 are calibrated on pictures: give images",
        f"24:3: cells[2].weights: weights file '{tmp_path / 'lost.weights.h5'}' {LOST}",
        "27:1: outputs[0].kind: invalid enum value 'zip'; known: bundle, openvino-ir, ovms, plain, triton",
    ]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "1:1: no cells; add a [[cells]] table with a variant or a model"),
        ("a = 1\n", "1:1: a: unknown key"),
        ("cells = [1]\n", "1:1: cells[0]: expected `object`, got `int`"),
        ("schema_version = 2\n[[cells]]\nvariant = 'v2'\n", "1:1: schema_version: invalid enum value 2; known: 1"),
        ("[[cells]]\nalpha = 1.0\n", "1:3: cells[0]: which network? give variant v2, large or small, or model NAME"),
        (
            "[[cells]]\nmodel = 'mobilenet_v2_1.0_224'\nalpha = 1.0\n",
            "2:1: cells[0].model: model names the whole network, so it cannot stand beside alpha",
        ),
        ("[[cells]]\nvariant = 'v2'\n[[cells]]\nvariant = 'v2'\n", "3:3: cells[1]: a second cell is called"),
        ("[[cells]]\nvariant = 'v2'\nopset = 7\n", "3:1: cells[0].opset: opset must be at least 13, not 7"),
        ("images = 'lost'\n[[cells]]\nvariant = 'v2'\n", "1:1: images: "),
        (
            "images = '.'\ngates.min_top1 = 0.5\n[[cells]]\nvariant = 'v2'\n",
            "1:1: images: folder ",
        ),
        (
            "images = 'val'\n[[cells]]\nvariant = 'v2'\nclasses = 2\ngates = { max_flips = 0.1 }\n",
            "1:1: images: folder ",
        ),
        ("labels = 'mbexport.toml'\n\n[[cells]]\nvariant = 'v2'\n", "1:1: labels: labels file /"),
        ("a = " + "[" * 5000 + "\n", "1:1: tables and lists lie too deep"),
        ("out = 'mbexport.toml'\n[[cells]]\nvariant = 'v2'\n", "1:1: out: /"),
        (
            "[[cells]]\nvariant = 'v2'\n[[outputs]]\npath = 'a'\npublish = 'foo://x/y'\n",
            "5:1: outputs[0].publish: fsspec knows no such kind of URL",
        ),
        (
            "[[cells]]\nvariant = 'v2'\ngates = { baseline = 'base' }\n[[outputs]]\npath = 'base'\n",
            "5:1: outputs[0].path: /",
        ),
        ("bench = false\ngates.p50_ms = 3\n[[cells]]\nvariant = 'v2'\n", "2:7: gates.p50_ms: latency is measured"),
        ("gates.max_slower = 0.1\n[[cells]]\nvariant = 'v2'\n", "1:7: gates.max_slower: slower than what?"),
        ("gates.baseline = 'lost'\n[[cells]]\nvariant = 'v2'\n", "1:7: gates.baseline: "),
        ("[[cells]]\nvariant = 'v2'\n[[outputs]]\n", "3:3: outputs[0].path: where? give a path"),
        ("[[cells]]\nvariant = 'v2'\n[[outputs]]\npath = '{alpha}'\n", "4:1: outputs[0].path: only {name} and"),
        (
            "[[cells]]\nvariant = 'v2'\n[[outputs]]\npath = 'a'\ncells = ['x*']\n",
            "5:1: outputs[0].cells[0]: no cell is",
        ),
        (
            "[[cells]]\nvariant = 'v2'\n[[outputs]]\npath = 'a'\nkind = 'plain'\nsign = 'k'\n",
            "6:1: outputs[0].sign: a bundle is signed, not plain",
        ),
        ("[[cells]]\nvariant = 'v2'\n[[outputs]]\npath = 'a'\nsign = 'k'\n", "5:1: outputs[0].sign: "),
        (
            "[[cells]]\nvariant = 'v2'\n[[outputs]]\npath = 'a'\n[[outputs]]\npath = 'a'\nkind = 'plain'\n",
            "6:1: outputs[1].path: ",
        ),
        ("[[cells]]\nvariant = []\n", "2:1: cells[0].variant: expected `array` of length >= 1"),
        ("gates.p99_ms = {}\n[[cells]]\nvariant = 'v2'\n", "1:7: gates.p99_ms: expected `object` of length >= 1"),
        ("gates.max_size_mb = inf\n[[cells]]\nvariant = 'v2'\n", "1:7: gates.max_size_mb: "),
        (
            "images = 'val'\ngates.min_top1 = 0.5\n[[cells]]\nvariant = 'v2'\ninclude_top = false\n",
            "5:1: cells[0].include_top: features have no accuracy: min_top1",
        ),
        *(
            (f"[[cells]]\nvariant = 'v2'\n[[outputs]]\npath = '{path}'\n", f"4:1: outputs[0].path: {fault}")
            for path, fault in (
                ("d/{name.foo}.zip", "only {name} and"),
                ("d/{name[x]}.zip", "only {name} and"),
                ("d/{name!r}.zip", "only {name} and"),
                ("d/{", "only {name} and"),
                ("mbexport.toml", "/"),
                ("artifacts/{name}/model.onnx", "/"),
                ("artifacts/junit.xml", "/"),
                ("artifacts", "/"),
                ("x/../profiles/a", "/"),
            )
        ),
        (
            "[[cells]]\nvariant = 'v2'\n[[outputs]]\npath = 'd'\nkind = 'plain'\n[[outputs]]\npath = 'd/a.zip'\n",
            "7:1: outputs[1].path: /",
        ),
        (
            (
                "[[cells]]\nvariant = 'v2'\n[[outputs]]\npath = 'a.zip'\npublish = 's3://b/a'\n"
                "[[outputs]]\npath = 'c.zip'\npublish = 's3://b/a'\n"
            ),
            "8:1: outputs[1].publish: s3://b/a is where another output goes too",
        ),
        (
            "[[cells]]\nvariant = 'v2'\n[[outputs]]\npath = 'a'\npublish = 'pub/a'\n",
            "5:1: outputs[0].publish: give a URL",
        ),
        ("[[cells]]\nvariant = 'v2'\n[[outputs]]\npath = 'a'\npublish = ''\n", "5:1: outputs[0].publish: give a URL"),
        ("[[cells]]\nvariant = 'v2'\n[[outputs]]\npath = 'a'\nforce = true\n", "5:1: outputs[0].force: replace what?"),
        ("a = [\n 1,\n", "2:1: Invalid value"),
        ("[[cells]]\nvariant = \n", "2:11: Invalid value"),
    ],
)
def test_a_fault(tmp_path: Path, text: str, fault: str) -> None:
    found = faults(tmp_path, text)
    assert len(found) == 1, found
    assert found[0].startswith(fault)


def test_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    (tmp_path / "long.toml").write_text("# long\n" * 200_000)
    for name, text in (
        ("lost.toml", "cannot be read: No such file"),
        (".", "cannot be read: Is a directory"),
        ("binary.toml", "is not UTF-8 text"),
        ("long.toml", "more than the 1048576 bytes"),
    ):
        with pytest.raises(InputError, match=re.escape(text)):
            read_pipeline(tmp_path / name)


def test_publishing_over_what_the_pipeline_needs(tmp_path: Path) -> None:
    table = "[[cells]]\nvariant = 'v2'\n[[outputs]]\npath = 'mbexport.toml.zip'\nforce = true\npublish = "
    for place in ("mbexport.toml", "artifacts/mobilenet_v2_1.0_224/model.onnx", "profiles/"):
        url = f"file://{tmp_path}/{place}"
        (found,) = faults(tmp_path, f"{table}'{url}'\n")
        assert found.startswith(f"6:1: outputs[0].publish: {url} would lie over {tmp_path}/"), found
    assert read_pipeline(written(tmp_path, f"{table}'file://{tmp_path}/remote/'\n")).outputs[0].force


def test_publishing_over_another_output(tmp_path: Path) -> None:
    tables = [
        f"[[outputs]]\npath = 'one.zip'\nforce = true\npublish = '{kind}://{tmp_path}/other.zip'\n"
        for kind in ("file", "local")
    ]
    for table in tables:
        text = f"[[cells]]\nvariant = 'v2'\n{table}[[outputs]]\npath = 'other.zip'\n"
        (found,) = faults(tmp_path, text)
        assert found.startswith("6:1: outputs[0].publish: "), found
        assert found.endswith(f"would lie over {tmp_path / 'other.zip'}, another output")


def test_baselines_that_are_damaged(tmp_path: Path) -> None:
    for name in ("base/a.json", "one.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
        (found,) = faults(tmp_path, f"gates.baseline = '{name.partition('/')[0]}'\n[[cells]]\nvariant = 'v2'\n")
        assert found.startswith(f"1:7: gates.baseline: {tmp_path / name} has no schema_version"), found


def test_too_few_pictures_to_calibrate_on(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "1.png").write_bytes(b"")
    (found,) = faults(tmp_path, "images = 'pictures'\n[[cells]]\nvariant = 'v2'\nprecision = 'int8'\n")
    assert found.startswith(f"1:1: images: {tmp_path / 'pictures'} holds 1 pictures; at least 16 are needed"), found


@pytest.mark.parametrize(
    ("keys", "place"),
    [
        (("a",), (1, 1)),
        (("list", 1), (2, 1)),
        (("t", "x"), (7, 3)),
        (("t", "inner", "y"), (9, 7)),
        (("rows", 1, "z"), (13, 1)),
        (("rows", 1), (12, 3)),
        (("rows", 1, "absent"), (12, 3)),
        (("rows", 0, "deep", "er"), (11, 10)),
        (("absent",), (1, 1)),
    ],
)
def test_positions(keys: tuple[str | int, ...], place: tuple[int, int]) -> None:
    text = """a = "rows = [1]"
list = [
  1,
  2, # a = 3
]
[t]
  x = '''
y = 2'''
inner.y = 1
[[rows]]
deep = { er = 1 }
[[rows]]
z = 2
"""
    assert Positions(text).of(keys) == place


def test_positions_of_a_long_file() -> None:
    text = "".join(f'[[cells]]\nvariant = "v2"\nseed = {number}\n\n' for number in range(2000))
    assert Positions(text).of(("cells", 1500, "seed")) == (6003, 1)
    assert Positions(text).of(("cells", 1500, "absent")) == (6001, 3)


def test_gates_of_a_table_and_of_the_file_go_together(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    cell = "[[cells]]\nvariant = 'v2'\n"
    for text in (
        f"gates.baseline = 'base'\n{cell}gates.max_slower = 0.1\n",
        f"gates.max_slower = 0.1\n{cell}gates.baseline = 'base'\n",
    ):
        (wanted,) = read_pipeline(written(tmp_path, text)).cells
        assert (wanted.gates.baseline, wanted.gates.max_slower) == ("base", 0.1)


def test_a_fault_of_several_tables_is_told_once(tmp_path: Path) -> None:
    cells = "[[cells]]\nvariant = 'v2'\n[[cells]]\nvariant = 'small'\n"
    assert len(faults(tmp_path, f"gates.max_slower = 0.1\n{cells}")) == 1


def test_placeholders() -> None:
    assert placed("{network}/{name}", "mobilenet_v2_1.0_224_int8") == "mobilenet_v2_1.0_224/mobilenet_v2_1.0_224_int8"
    assert placed("{network}", "mobilenet_v2_1.0_224") == "mobilenet_v2_1.0_224"


def test_the_schema_takes_what_is_right_and_nothing_else() -> None:
    schema: dict[str, Any] = msgspec.json.schema(PipelineDocument)
    jsonschema.validate(tomllib.loads(WHOLE), schema)
    jsonschema.validate(tomllib.loads((EXAMPLES / "mbexport.toml").read_text()), schema)
    for wrong in ("[[cells]]\nvariants = 'v2'\n", "[gates]\nmin_top1 = 2\n", "[[outputs]]\nkind = 'zip'\n"):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(tomllib.loads(wrong), schema)


def test_the_example_and_the_command_line(tmp_path: Path) -> None:
    done = invoke("pipeline", "check", str(EXAMPLES / "mbexport.toml"))
    assert done.exit_code == 0, done.output
    assert "5 cells" in done.stdout
    done = invoke("pipeline", "check", str(written(tmp_path, "a = 1\n")), "--json")
    assert done.exit_code == 2
    assert done.stdout == ""
    assert f"{tmp_path / 'mbexport.toml'}:1:1: a: unknown key" in done.stderr
