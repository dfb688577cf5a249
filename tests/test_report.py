"""The report page: which rows it speaks of, what its plots and tables hold, and how its HTML is made."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import math
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from mbexport import profiles as profiles_module
from mbexport.analysis.machine import choose_machine
from mbexport.analysis.report import accuracy, bars, choose, cold, distributions, heat, style, text
from mbexport.analysis.report.data import ReportData, Row, gather
from mbexport.analysis.report.machine import machine as machine_words
from mbexport.analysis.report.machine import networks_table
from mbexport.analysis.report.page import html_page, plotly_source
from mbexport.analysis.report.parts import inside_script
from mbexport.analysis.report.tuned import tuned_table
from mbexport.errors import InputError
from mbexport.profile import ColdStart, LatencyProfile, Measurement, Scenario
from mbexport.profiles import write_profile
from mbexport.spec import ModelSpec
from mbexport.tuned import AccuracyCheck
from mbexport_cli.app import app
from tests.measured import HARDWARE, measurement, profile, replicate
from tests.tuned import tuned

SCENARIOS: tuple[Scenario, ...] = ("single-stream", "concurrent", "offline")
NASTY = "</script><script>alert('x')</script>&amp;<b>%{x}$1$"
SMALL, V2 = ModelSpec(variant="small"), ModelSpec(variant="v2")
VOID = {"meta", "input", "br", "hr", "link", "img"}


class Node:
    """An element of the page, or its text."""

    def __init__(self, tag: str, attributes: dict[str, str], parent: Node | None) -> None:
        self.tag, self.attributes, self.parent = tag, attributes, parent
        self.children: list[Node | str] = []

    def all(self, *tags: str) -> list[Node]:
        inner = [child for child in self.children if isinstance(child, Node)]
        return [node for child in inner for node in ([child] if child.tag in tags else []) + child.all(*tags)]

    def text(self) -> str:
        return "".join(child if isinstance(child, str) else child.text() for child in self.children)


class Tree(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.root = self.node = Node("", {}, None)
        self.feed(page)
        assert self.node is self.root, f"{self.node.tag} is not closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        child = Node(tag, {name: value or "" for name, value in attrs}, self.node)
        self.node.children.append(child)
        self.node = self.node if tag in VOID else child

    def handle_endtag(self, tag: str) -> None:
        assert (tag, self.node.parent) == (self.node.tag, self.node.parent), tag
        assert self.node.parent is not None
        self.node = self.node.parent

    def handle_data(self, data: str) -> None:
        self.node.children.append(data)


def ms(milliseconds: float, **changes: Any) -> Measurement:
    """A row whose every call took that long."""
    return measurement(replicates=[replicate([round(milliseconds * 1e6)] * 300)] * 3, **changes)


def small(*rows: Measurement, **changes: Any) -> LatencyProfile:
    return profile(*rows, **({"artifact": SMALL.slug, "spec": SMALL} | changes))


def of(spec: ModelSpec, *rows: Measurement) -> LatencyProfile:
    return profile(*rows, artifact=spec.slug, spec=spec)


def data_of(*found: LatencyProfile) -> ReportData:
    paths = {Path(f"own/machine/{number}.json"): each for number, each in enumerate(found)}
    return gather(choose_machine(paths, None, HARDWARE, SCENARIOS), Path("shipped"))


def varied() -> ReportData:
    """Two published networks and one of the reader's own, two settings, three verdicts, prepared starts."""
    bf16 = {"runtime": "openvino:cpu", "mode": "production", "precision": "bf16"}
    noisy: dict[str, Any] = {"verdict": "noisy", "reasons": ["<i>others</i> < 10%"]}
    prepared = [ColdStart(start_s=0.1, import_s=0.05, load_s=0.01, first_inference_s=0.002)]
    return data_of(
        small(ms(1), ms(1, mode="production"), ms(0.6, **bf16, **noisy, prepared=prepared), ms(0.7, threads=2)),
        of(V2, ms(4), ms(2.2, **bf16), ms(3, threads=2)),
        of(ModelSpec(variant="v2", alpha=0.5, height=96, width=96), ms(1.5)),
        profile(ms(9), ms(8, **bf16, verdict="invalid", reasons=["3 samples"]), artifact=NASTY, spec=None),
    )


@pytest.fixture(scope="module")
def page() -> str:
    return html_page(varied(), plotly_source())


@pytest.fixture(scope="module")
def tree(page: str) -> Node:
    return Tree(page).root


def figures_of(tree: Node) -> dict[str, Any]:
    (element,) = [node for node in tree.all("script") if node.attributes.get("id") == "figures"]
    found: dict[str, Any] = json.loads(element.text())
    return found


def plots_in(tree: Node) -> dict[str, Node]:
    """The plots by the id of the place that is drawn into."""
    plots = [node for node in tree.all("div") if node.attributes.get("class") == "plot"]
    return {node.all("div")[0].attributes["id"]: node for node in plots}


def look_of(data: ReportData) -> dict[Any, style.Style]:
    return style.styles(data.series)


def rows_of(*found: LatencyProfile) -> list[Row]:
    data = data_of(*found)
    return data.drawn(data.settings[0])


# The page


def test_landmarks_and_headings(tree: Node) -> None:
    assert [len(tree.all(tag)) for tag in ("main", "header", "footer", "nav", "h1")] == [1] * 5
    levels = [int(node.tag[1]) for node in tree.all("h1", "h2", "h3", "h4")]
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    (html,) = tree.all("html")
    assert html.attributes["lang"] == "en"
    ids = [node.attributes["id"] for node in tree.all("h2", "main", "div", "caption") if "id" in node.attributes]
    assert len(ids) == len(set(ids))
    links = [node.attributes["href"] for node in tree.all("a")]
    assert links[0] == "#main"
    assert {link.removeprefix("#") for link in links} <= set(ids)
    for section in tree.all("section"):
        assert section.attributes["aria-labelledby"] in ids


def test_tables_have_captions_and_scopes(tree: Node) -> None:
    tables = tree.all("table")
    assert len(tables) > 10
    for table in tables:
        (caption,) = table.all("caption")
        assert caption.text()
        (head,), body = table.all("thead"), table.all("tbody")[0]
        columns = head.all("th")
        assert all(cell.attributes["scope"] == "col" for cell in columns)
        for line in body.all("tr"):
            assert [cell.attributes["scope"] for cell in line.all("th")] == ["row"]
            assert len(line.all("th", "td")) == len(columns)
        assert table.parent is not None
        assert table.parent.attributes["tabindex"] == "0"
        assert table.parent.attributes["aria-labelledby"] == caption.attributes["id"]


def test_every_plot_has_words_and_a_table(tree: Node) -> None:
    plots = plots_in(tree)
    assert plots.keys() == figures_of(tree).keys()
    for node in plots.values():
        assert node.attributes["role"] == "img"
        assert len(node.attributes["aria-label"].split()) > 5
    panels = [node for node in tree.all("div") if node.attributes.get("class") == "panel"]
    assert len(panels) == 6 * 2
    for panel in panels:
        drawn = plots_in(panel)
        assert bool(drawn) == bool(panel.all("details")), panel.text()
        assert drawn or panel.all("p")
    # Open for readers without scripts; the script closes them.
    assert all("open" in node.attributes for node in tree.all("details"))


def test_choice_of_setting_is_plain_radio_buttons(tree: Node) -> None:
    (group,) = tree.all("fieldset")
    labels = group.all("label")
    assert [label.text().strip() for label in labels] == ["1 thread, batch 1", "2 threads, batch 1"]
    buttons = [label.all("input")[0].attributes for label in labels]
    assert [("checked" in button, button["value"]) for button in buttons] == [(True, "0"), (False, "1")]
    one = Tree(html_page(data_of(small(ms(1))), "")).root
    assert one.all("fieldset") == []


def test_no_reference_to_anywhere_but_in_plotlys_own_code(page: str, tree: Node) -> None:
    rest = page.replace(plotly_source(), "")
    assert len(rest) < len(page) / 4
    assert re.findall(r"https?:|url\(|@import", rest) == []
    assert all(node.attributes["href"].startswith("#") for node in tree.all("a"))
    assert {name for node in tree.all("script", "link", "img", "a") for name in node.attributes} <= {
        *("href", "type", "id", "class")
    }


def test_policy_forbids_the_network_and_other_scripts(tree: Node) -> None:
    (policy,) = [node.attributes["content"] for node in tree.all("meta") if "http-equiv" in node.attributes]
    assert policy.startswith("default-src 'none'; ")
    scripts = [node.text() for node in tree.all("script") if "id" not in node.attributes]
    assert len(scripts) == 2
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    assert f"script-src 'sha256-{hashes[0]}' 'sha256-{hashes[1]}';" in policy
    assert "unsafe-eval" not in policy


def test_names_from_profiles_come_out_as_text(page: str, tree: Node) -> None:
    assert len(tree.all("script")) == 3
    assert "<b>" not in page.replace(plotly_source(), "")
    rows = [cell.text() for cell in tree.all("th") if cell.attributes["scope"] == "row"]
    assert NASTY in rows
    assert any(NASTY in node.attributes.get("aria-label", "") for node in tree.all("div"))
    assert "<i>others</i> < 10%" in [cell.text() for cell in tree.all("td")]


def test_json_in_a_script_cannot_end_it() -> None:
    value = {"</script>": ["<!-- <script>", 'a "quoted" \\ word']}
    inside = inside_script(json.dumps(value))
    assert "<" not in inside
    assert json.loads(inside) == value


def test_plotly_gets_no_tags_and_no_templates_from_profiles(tree: Node) -> None:
    """Plotly reads tags in every text that it shows, and %{...} in templates; categories it does not show."""
    shown = {"name", "text", "hovertext", "ticktext"}

    def texts(value: Any, key: str = "") -> list[str]:
        if isinstance(value, dict):
            return [found for name, inner in value.items() for found in texts(inner, name)]
        if isinstance(value, list):
            return [found for inner in value for found in texts(inner, key)]
        return [value] if isinstance(value, str) and (key in shown or key.endswith("template")) else []

    found = texts(figures_of(tree))
    assert any("alert" in each for each in found)
    assert {tag for each in found for tag in re.findall(r"<[^>]*>", each)} <= {"<br>"}
    templates = {
        value
        for figure in figures_of(tree).values()
        for trace in figure["data"]
        for key, value in trace.items()
        if key.endswith("template")
    }
    assert templates <= {"%{text}"}


def test_same_profiles_give_the_same_bytes(page: str) -> None:
    assert html_page(varied(), plotly_source()) == page
    data = varied()
    again = choose_machine(
        {Path(f"own/machine/{number}"): each for number, each in enumerate(reversed(data.profiles))},
        None,
        HARDWARE,
        SCENARIOS,
    )
    assert html_page(gather(again, Path("shipped")), plotly_source()) == page
    assert len(page.encode()) < 6e6


def test_all_rows_stand_in_the_last_table(tree: Node) -> None:
    table = tree.all("table")[-1]
    lines = [[cell.text() for cell in line.all("th", "td")] for line in table.all("tbody")[0].all("tr")]
    assert len(lines) == 10
    assert [line[-2] for line in lines].count("invalid") == 1
    assert [line[:6] for line in lines if line[-2] == "noisy"] == [
        [SMALL.slug, "openvino:cpu", "production", "bf16", "1 thread, batch 1", "0.600"]
    ]


def test_contrasts() -> None:
    """WCAG 2: 4.5 for text, 3 for what must be seen; of the style sheet's colours and the plots'."""
    css = Path(style.__file__).with_name("page.css").read_text()
    light, dark = (
        dict(re.findall(r"--(\w+): (#[0-9a-f]{6});", block)) for block in re.findall(r":root \{(.*?)\}", css, re.DOTALL)
    )
    assert (light["page"], dark["page"]) == style.BACKGROUNDS
    for theme in (light, dark):
        for name in ("ink", "soft", "link"):
            assert contrast(theme[name], theme["page"]) >= 4.5
            assert contrast(theme[name], theme["raised"]) >= 4.5
        for colour in (*style.COLOURS, *style.PART_COLOURS, style.MIDDLE, theme["focus"]):
            assert contrast(colour, theme["page"]) >= 3
    for colour in (*style.PART_COLOURS, "#eef5fc", "#6aa5dd"):  # under the black text in bars and maps
        assert contrast(colour, "#000000") >= 4.5


def contrast(one: str, other: str) -> float:
    """The WCAG's definition."""

    def luminance(colour: str) -> float:
        channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
        return sum(weight * value for weight, value in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


# The rows


def test_networks_stand_by_family_width_and_size() -> None:
    specs = [
        SMALL,
        V2,
        ModelSpec(variant="v2", alpha=0.35),
        ModelSpec(variant="v2", height=96, width=96),
        ModelSpec(variant="large", minimalistic=True),
        ModelSpec(variant="large"),
    ]
    own = profile(ms(1), artifact="a", spec=None)
    data = data_of(own, *(of(spec, ms(1)) for spec in specs))
    assert [row.label for row in data.rows] == [
        *("v2 0.35 224", "v2 1.0 96", "v2 1.0 224", "v3 large 1.0 224", "v3 large minimalistic 1.0 224"),
        *("v3 small 1.0 224", "a"),
    ]


def test_shortened_names_are_never_two_networks() -> None:
    data = data_of(of(V2, ms(1)), profile(ms(2), artifact="v2 1.0 224", spec=None))
    assert [row.label for row in data.rows] == ["mobilenet_v2_1.0_224", "v2 1.0 224"]


def test_settings_part_rows() -> None:
    concurrent = ms(1, scenario="concurrent", concurrency=4)
    data = data_of(small(ms(1), ms(1, threads=2), ms(1, batch=8), concurrent, ms(1, scenario="offline")))
    assert [setting.text for setting in data.settings] == [
        "1 thread, batch 1",
        "1 thread, batch 8",
        "2 threads, batch 1",
        "1 thread, batch 1, 4 calls at once",
        "1 thread, batch 1, offline",
    ]
    assert [len(data.drawn(setting)) for setting in data.settings] == [1] * 5


def test_accelerators_are_named_or_their_absence() -> None:
    gpu = msgspec.structs.replace(HARDWARE, accelerators=["NVIDIA H100"])
    cases = (
        (small(ms(1)), "none found; every row ran on the processor"),
        (small(ms(1, runtime="openvino:gpu")), "none found"),
        (small(ms(1, runtime="ort:cuda"), hardware=gpu), "NVIDIA H100"),
    )
    for found, words in cases:
        assert dict(machine_words(data_of(found)))["Accelerators"] == words


# The sections


def test_points_are_one_for_each_precision() -> None:
    production = {"runtime": "ort:cpu", "mode": "production"}
    rows = rows_of(small(ms(1), ms(1.1, **production), ms(0.5, **(production | {"runtime": "openvino:cpu"}))))
    assert [(row.series.runtime, row.series.mode) for row in accuracy.drawn(rows)] == [
        ("openvino:cpu", "production"),
        ("ort:cpu", "parity"),
    ]
    bf16 = rows_of(small(ms(1), ms(0.5, **production, precision="bf16")))
    assert len(accuracy.drawn(bf16)) == 2


def test_front_of_known_points() -> None:
    """Published top-1: V3 Small 68.1, V2 71.8, V2 0.5 at 96 51.2 percent."""
    rows = rows_of(small(ms(2)), of(V2, ms(1)), of(ModelSpec(variant="v2", alpha=0.5, height=96, width=96), ms(0.5)))
    assert [row.label for row in accuracy.pareto_front(rows)] == ["v2 0.5 96", "v2 1.0 224"]


POINTS = rows_of(
    *(
        of(ModelSpec(variant="v2", alpha=alpha, height=side, width=side), ms(1))
        for alpha in (0.35, 0.5, 0.75, 1.0)
        for side in (96, 128, 160, 192, 224)
    )
)


@given(st.lists(st.tuples(st.sampled_from(POINTS), st.integers(1, 5)), min_size=1, max_size=12))
def test_front_is_what_nothing_beats(drawn: list[tuple[Row, int]]) -> None:
    points = [with_p50(row, p50_s) for row, p50_s in drawn]
    figures = [(row.figures.p50_s, top1(row)) for row in points]

    def beaten(one: tuple[float, float]) -> bool:
        return any(other != one and other[0] <= one[0] and other[1] >= one[1] for other in figures)

    expected = sorted({figure for figure in figures if not beaten(figure)})
    assert [(row.figures.p50_s, top1(row)) for row in accuracy.pareto_front(points)] == expected


def with_p50(row: Row, p50_s: float) -> Row:
    figures = msgspec.structs.replace(row.figures, p50_s=float(p50_s))
    return Row(**{name: getattr(row, name) for name in row.__dataclass_fields__} | {"figures": figures})


def top1(row: Row) -> float:
    assert row.published is not None
    return row.published.top1


def test_networks_without_figures_are_named_and_not_drawn() -> None:
    rows = rows_of(small(ms(1)), profile(ms(2), artifact="mine", spec=None))
    panel = accuracy.panel(rows, look_of(data_of(small(ms(1)))))
    assert panel.notes == ["Not drawn, as no published top-1 is known: mine."]
    (table,) = panel.tables
    assert [line[0] for line in table.rows] == [SMALL.slug]
    alone = accuracy.panel(rows_of(profile(ms(2), artifact="mine", spec=None)), {})
    assert (alone.plots, len(alone.notes)) == ((), 2)


INT8 = profile(ms(0.5, precision="int8"), artifact=f"{SMALL.slug}_int8", spec=SMALL, precision="int8")


def test_narrower_files_have_no_published_accuracy() -> None:
    data = data_of(small(ms(1)), INT8)
    panel = accuracy.panel(data.rows, look_of(data))
    assert panel.notes == ["Not drawn, as published top-1 are those of float32 files: v3 small 1.0 224 int8."]
    assert [line[0] for line in panel.tables[0].rows] == [SMALL.slug]
    table = networks_table(data.profiles)
    told = {line[0]: line for line in table.rows}
    assert (told[SMALL.slug][1], told[SMALL.slug][4]) == ("f32", "68.1")
    assert (told[INT8.artifact][1], told[INT8.artifact][4]) == ("int8", "-")


def test_what_was_tuned_is_told_with_its_evidence() -> None:
    wanted = msgspec.structs.replace(tuned().configuration, artifact=NASTY, callers=2, options={"KEY": "1"})
    drop = AccuracyCheck(
        rule="top-1", inside=True, pictures=400, top1_drop=0.0025, top1_drop_ci=(-0.01, 0.015), expected_drop=0.1
    )
    expected = AccuracyCheck(
        rule="expected", inside=True, pictures=40, top1_drop=0.0, top1_drop_ci=(-0.1, 0.1), expected_drop=0.001
    )
    found = [
        tuned(configuration=wanted, accuracy=drop),
        tuned(objective="p99", accuracy=expected, over_defaults=None),
        tuned(objective="throughput", accuracy=AccuracyCheck(rule="sqnr", inside=True, sqnr_db=18.25)),
    ]
    table = tuned_table([small(ms(1), tuned=found)])
    assert table is not None
    told = [dict(zip(table.columns, line, strict=True)) for line in table.rows]
    assert [line["for"].split()[0] for line in told] == ["p50", "p99", "throughput"]
    assert [line["accuracy"] for line in told] == [
        "top-1 drop 0.25 [-1.0, 1.5] points on 400 pictures",
        "expected drop 0.10 points on 40 pictures",
        "SQNR 18.2 dB",
    ]
    assert [line["over the defaults"] for line in told] == ["2.00", "-", "2.00"]
    assert (told[0]["threads"], told[0]["options"], told[1]["options"]) == ("2 for 2 callers", "KEY=1", "none")
    page = Tree(html_page(data_of(small(ms(1), tuned=found)), "")).root
    assert "tuned" in {node.attributes.get("id") for node in page.all("h2")}
    assert any(NASTY in cell.text() for cell in page.all("td"))
    untuned = Tree(html_page(data_of(small(ms(1))), "")).root
    assert not any("tuned" in node.attributes.get("href", "") for node in untuned.all("a"))


def test_maps_are_of_one_precision_of_file() -> None:
    """f16 files that a CPU widens compute in f32, as float32 files do, and are other files."""
    specs = [
        ModelSpec(variant="v2", alpha=alpha, height=side, width=side) for alpha in (0.5, 1.0) for side in (96, 224)
    ]
    wide = [profile(ms(9), artifact=f"{spec.slug}_f16", spec=spec, precision="f16") for spec in specs]
    tuned = [of(spec, ms(5, asked_options={"NUM_STREAMS": "2"})) for spec in specs]
    found = {grid.family: grid for grid in heat.grids(rows_of(*wide, *(of(spec, ms(1)) for spec in specs)))}
    assert found.keys() == {"MobileNetV2", "MobileNetV2, f16 file"}
    assert {row.figures.p50_s for row in found["MobileNetV2"].cells.values()} == {0.001}
    assert heat.grids(rows_of(*tuned)) == []


def test_rows_with_other_options_have_a_name_of_their_own() -> None:
    rows = rows_of(small(ms(1), ms(2, asked_options={"NUM_STREAMS": "2"})))
    assert [row.label for row in rows] == ["v3 small 1.0 224", "v3 small 1.0 224, NUM_STREAMS=2"]


def test_precisions_of_a_mode_share_a_bar_s_place() -> None:
    data = data_of(small(ms(1), ms(1, mode="production")), INT8)
    ((_, drawing),) = bars.grouped(data.rows, look_of(data), "ms", p50, lambda _: "")
    places = {trace.name.partition(" ")[2]: trace.offsetgroup for trace in drawing.data}
    assert places["ort:cpu parity f32"] == places["ort:cpu parity int8"] != places["ort:cpu production f32"]


def test_quantiles_are_of_all_calls_together() -> None:
    """Calls of 1 to 1000 ms over two processes: between the k-th and the next one, as the definition has it."""
    halves = [[call * 1_000_000 for call in range(start, 1001, 2)] for start in (1, 2)]
    (row,) = rows_of(small(measurement(replicates=[replicate(half) for half in halves])))
    assert distributions.quantiles_ms(row, [0, 0.5, 0.99, 1]) == pytest.approx([1, 500.5, 990.01, 1000])
    data = data_of(small(row.measured))
    panel = distributions.panel([row], look_of(data))
    curve, marks = panel.plots[0].figure.data
    assert (min(curve.x), max(curve.x)) == (1, 1000)
    assert list(marks.x) == pytest.approx([500.5, 900.1, 990.01])
    assert list(marks.y) == [0.5, 0.9, 0.99]


def test_percentile_without_samples_is_not_marked() -> None:
    (row,) = rows_of(small(measurement(replicates=[replicate([1_000_000] * 50)])))
    panel = distributions.panel([row], look_of(data_of(small(row.measured))))
    assert list(panel.plots[0].figure.data[1].y) == [0.5]
    assert panel.tables[0].rows[0][-4:-2] == ("too few", "too few")


def test_cold_start_parts_add_up_and_unrecorded_ones_are_left_out() -> None:
    prepared = [ColdStart(start_s=0.5, import_s=0.05, load_s=0.02, first_inference_s=0.01)]
    old = [replicate([1_000_000] * 300, import_s=0.1, load_s=0.2, first_inference_s=0.3)]
    data = data_of(small(measurement(replicates=old, prepared=prepared)))
    panel = cold.panel(data.rows, look_of(data))
    (table,) = panel.tables
    assert [line[4:] for line in table.rows] == [
        ("fresh", "-", "100.0", "200.0", "300.0", "600.0"),
        ("prepared", "500.0", "50.00", "20.00", "10.00", "580.0"),
    ]
    (plot,) = panel.plots
    assert [(bar.name, list(bar.x)) for bar in plot.figure.data] == [
        ("start", [500]),
        ("import", [100, 50]),
        ("load", [200, 20]),
        ("first inference", [300, 10]),
    ]
    assert any("do not record" in note for note in panel.notes)


def test_map_names_its_gaps() -> None:
    sizes = ((1.0, 224, 4.0), (1.0, 96, 1.0), (0.5, 224, 2.0))
    rows = rows_of(
        *(of(ModelSpec(variant="v2", alpha=alpha, height=side, width=side), ms(p50)) for alpha, side, p50 in sizes),
        small(ms(1)),
    )
    panel = heat.panel(rows, {})
    (plot,), (table,) = panel.plots, panel.tables
    (trace,) = plot.figure.data
    assert (list(plot.figure.layout.xaxis.ticktext), list(plot.figure.layout.yaxis.ticktext)) == (
        ["96", "224"],
        ["0.5", "1"],
    )
    assert [list(line) for line in trace.z] == [[None, 2.0], [1.0, 4.0]]
    assert [(gap.x, gap.y) for gap in plot.figure.layout.annotations] == [(0, 0)]
    assert [line[4:7] for line in table.rows] == [
        ("0.5", "96", "not measured"),
        ("0.5", "224", "2.000"),
        ("1", "96", "1.000"),
        ("1", "224", "4.000"),
    ]
    assert panel.notes == [
        "MobileNetV3 small: no map, as one alpha only (1) and one resolution only (224) was measured."
    ]


def test_map_takes_imagenet_classifiers_alone() -> None:
    others = [
        profile(ms(1), artifact="own", spec=None),
        of(ModelSpec(variant="small", classes=10), ms(1)),
        of(ModelSpec(variant="small", include_top=False), ms(1)),
        of(ModelSpec(variant="small", height=None, width=None), ms(1, input_size=(224, 224))),
    ]
    panel = heat.panel(rows_of(*others), {})
    assert (panel.plots, panel.tables) == ([], [])
    assert "No network of MobileNetV2 or V3" in panel.notes[0]


def test_setting_of_invalid_rows_says_so() -> None:
    tree = Tree(html_page(data_of(small(ms(1, verdict="invalid", reasons=["3 samples"]))), "")).root
    panels = [node for node in tree.all("div") if node.attributes.get("class") == "panel"]
    assert figures_of(tree) == {}
    assert all(panel.all("p") for panel in panels)


def test_bars_of_many_networks_fit_printed_pages() -> None:
    rows = rows_of(*(profile(ms(1), ms(2, mode="production"), artifact=f"n{n}", spec=None) for n in range(60)))
    drawings = list(bars.grouped(rows, style.styles(sorted({row.series for row in rows})), "ms", p50, lambda _: ""))
    assert [name for names, _ in drawings for name in names] == [f"n{n}" for n in sorted(range(60), key=str)]
    assert all(drawing.layout.height <= 900 for _, drawing in drawings)
    assert len({drawing.layout.xaxis.range for _, drawing in drawings}) == 1


def p50(row: Row) -> float:
    return row.figures.p50_s


@given(st.integers(1, 100), st.integers(1, 2000), st.integers(1, 1000))
def test_chunks_hold_all_and_fit(count: int, each: int, room: int) -> None:
    names = [str(number) for number in range(count)]
    parts = list(bars.chunks(names, each, room))
    assert [name for part in parts for name in part] == names
    assert all(len(part) * each <= room or len(part) == 1 for part in parts)


@given(st.floats(1e-3, 1e4), st.floats(1.02, 1e3))
def test_ticks_lie_inside_and_are_enough(low: float, factor: float) -> None:
    ticks = style.log_ticks(low, low * factor)
    assert ticks == sorted(set(ticks))
    assert all(low <= tick <= low * factor for tick in ticks)
    assert 1 <= len(ticks) <= 4 + 3 * (math.log10(factor) + 1) * 3


def test_series_differ_in_more_than_colour() -> None:
    marks = [style.style(index) for index in range(16)]
    assert len({(mark.colour, mark.symbol) for mark in marks}) == 16
    assert len({mark.symbol for mark in marks[:8]}) == len({mark.colour for mark in marks[:8]}) == 8


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.0009876, "0.988"), (0.0045678, "4.568"), (0.012345, "12.35"), (1.5, "1500.0")]
)
def test_milliseconds(seconds: float, shown: str) -> None:
    assert text.milliseconds(seconds) == shown


# The command


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["profile", "report", *arguments])


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, with nothing shipped."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(profiles_module, "shipped_profiles_dir", lambda: tmp_path / "shipped")
    return tmp_path


def store(folder: Path, one: LatencyProfile, name: str = "net.json") -> None:
    write_profile(folder / one.hardware.slug / name, one)


OTHER = msgspec.structs.replace(HARDWARE, cpu="Cortex-A76", architecture="aarch64", cpu_family=None)


def test_command_writes_the_page_and_says_so(here: Path) -> None:
    store(here / "profiles", small(ms(1), ms(1, threads=2)))
    store(here / "shipped", of(V2, ms(4)), "v2.json")
    done = invoke("-o", "out/deep/r.html", "--json")
    assert (done.exit_code, done.stderr) == (0, "")
    assert json.loads(done.stdout) == {
        "report": "out/deep/r.html",
        "hardware": HARDWARE.slug,
        "origin": "measured here; others shipped with mbexport",
        "networks": 2,
        "rows": 3,
    }
    written = (here / "out/deep/r.html").read_bytes()
    assert [path.name for path in (here / "out/deep").iterdir()] == ["r.html"]
    told = invoke("-o", "out/deep/r.html").stdout
    assert "networks: 2, rows: 3, measured here; others shipped with mbexport" in told
    assert (here / "out/deep/r.html").read_bytes() == written


def test_own_rows_go_before_shipped_ones(here: Path) -> None:
    store(here / "profiles", small(ms(1)))
    store(here / "shipped", small(ms(5), ms(3, threads=2)))
    machine = choose([here / "profiles", here / "shipped"])
    data = gather(machine, here / "shipped")
    assert [(row.measured.threads, row.figures.p50_s) for row in data.rows] == [(1, 0.001), (2, 0.003)]
    assert data.origin == "measured here; others shipped with mbexport"


def test_names_and_hardware_choose(here: Path) -> None:
    store(here / "profiles", small(ms(1)))
    store(here / "profiles", of(V2, ms(1)), "v2.json")
    store(here / "profiles", small(ms(1), hardware=OTHER))
    documents = [
        json.loads(invoke(*arguments, "--json").stdout)
        for arguments in (
            ["--hardware", HARDWARE.slug],
            ["--hardware", OTHER.slug],
            ["v2"],
            [OTHER.slug],
            ["v2", "small", "--hardware", HARDWARE.slug],
        )
    ]
    assert [(found["hardware"], found["networks"]) for found in documents] == [
        (HARDWARE.slug, 2),
        (OTHER.slug, 1),
        (HARDWARE.slug, 1),
        (OTHER.slug, 1),
        (HARDWARE.slug, 2),
    ]


def test_bad_input_is_one_line_and_writes_nothing(here: Path) -> None:
    assert refused([]) == "error: no profiles yet; measure with: mbexport bench ARTIFACT"
    store(here / "profiles", small(ms(1)))
    (here / "folder").mkdir()
    (here / "file").touch()
    assert "it is a folder; name a file" in refused(["-o", "folder"])
    assert "cannot write" in refused(["-o", "file/report.html"])
    assert "no measured profile of v9 in profiles or shipped" in refused(["v9"])
    assert "no profiles of a machine called" in refused(["--hardware", "nowhere"])
    store(here / "profiles", small(hardware=OTHER))
    assert "hold no rows" in refused(["--hardware", OTHER.slug])
    (here / "profiles/x").mkdir()
    (here / "profiles/x/newer.json").write_text('{"schema_version": 99}')
    assert "schema version 99" in refused([])
    assert sorted(path.name for path in here.iterdir()) == ["file", "folder", "profiles"]


def refused(arguments: list[str]) -> str:
    done = invoke(*arguments, "--json")
    assert (done.exit_code, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    return line


def test_profiles_of_machines_that_are_not_this_one_must_be_chosen(here: Path) -> None:
    third = msgspec.structs.replace(OTHER, cpu="Cortex-A55")
    for machine in (OTHER, third):
        store(here / "profiles", small(ms(1), hardware=machine))
    line = refused([])
    assert OTHER.slug in line
    assert third.slug in line
    assert "--hardware" in line


def test_without_plotly_the_extra_is_named(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store(here / "profiles", small(ms(1)))
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    done = invoke("--json")
    assert (done.exit_code, done.stdout) == (3, "")
    (line,) = done.stderr.splitlines()
    assert line.endswith("pip install 'mbexport[report]'")
    assert sorted(path.name for path in here.iterdir()) == ["profiles"]


def test_choosing_refuses_two_machines_in_one_folder(here: Path) -> None:
    store(here / "profiles", small(ms(1)))
    twin = msgspec.structs.replace(HARDWARE, memory_bytes=2 * HARDWARE.memory_bytes)
    store(here / "profiles", of(V2, ms(1)), "v2.json")
    store(here / "profiles", of(V2, ms(1)), "v2.json")
    assert len(choose([here / "profiles"]).cells) == 2
    store(here / "profiles", msgspec.structs.replace(of(V2, ms(1)), hardware=twin), "v2.json")
    with pytest.raises(InputError, match="two machines with the same name"):
        choose([here / "profiles"])
