"""The report page in a real browser: silent, asking for nothing, drawn, in both themes, by keyboard, on paper."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from mbexport.analysis.report import style
from mbexport.analysis.report.page import html_page, plotly_source
from tests import chromium
from tests.test_report import Tree, contrast, figures_of, plots_in, varied

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PROGRAM = chromium.find()
pytestmark = pytest.mark.skipif(
    PROGRAM is None, reason=f"no Chromium here: {', '.join(chromium.NAMES)} are not on the path"
)
TOLD = ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")
DRAWN = "[...document.querySelectorAll('.plot > div:has(svg)')].map((plot) => plot.id)"
SHOWN = "[...document.querySelectorAll('.panel:not([hidden])')].map((panel) => panel.dataset.setting)"
STYLES = "[...document.querySelectorAll('{}')].map((found) => getComputedStyle(found).{})"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_bytes(html_page(varied(), plotly_source()).encode())
    return path


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[chromium.Page]:
    assert PROGRAM is not None
    with chromium.page(PROGRAM, tmp_path_factory.mktemp("browser")) as page:
        yield page


def opened(page: chromium.Page, path: Path, **how: Any) -> list[dict[str, Any]]:
    """What the page told or asked for while it was opened."""
    page.events.clear()
    page.open(path, **how)
    page.value("new Promise((done) => requestAnimationFrame(() => setTimeout(done, 50)))")
    return page.events_of(*TOLD)


def requests_of_pages(net_log: Path) -> list[str]:
    """What pages asked the network for; the browser's own services have no origin."""
    log = json.loads(net_log.read_text())
    start = log["constants"]["logEventTypes"]["URL_REQUEST_START_JOB"]
    jobs = [event["params"] for event in log["events"] if event["type"] == start and "params" in event]
    return [job["url"] for job in jobs if job.get("initiator", "not an origin") != "not an origin"]


def test_silent_and_without_a_request(report: Path, tmp_path: Path) -> None:
    """Beside a page that is neither, so that it is seen that such things would be seen."""
    loud = tmp_path / "loud.html"
    loud.write_text("<script>console.error('loud'); fetch('https://asked.invalid/'); undefined_name()</script>")
    assert PROGRAM is not None
    with chromium.page(PROGRAM, tmp_path) as page:
        assert opened(page, report) == []
        asked = {event["request"]["url"].partition(":")[0] for event in page.events_of("Network.requestWillBeSent")}
        assert asked <= {"file", "data"}
        assert len(opened(page, loud)) >= 3
    assert requests_of_pages(tmp_path / "net.json") == ["https://asked.invalid/"]


def test_policy_stops_what_a_page_might_ask_for(report: Path, tab: chromium.Page) -> None:
    opened(tab, report)
    assert tab.value("fetch('https://asked.invalid/').then(() => 'sent', (error) => error.name)") == "TypeError"
    assert any("Content Security Policy" in event["entry"]["text"] for event in tab.events_of("Log.entryAdded"))


def test_plots_of_the_chosen_setting_are_drawn(report: Path, tab: chromium.Page) -> None:
    assert opened(tab, report) == []
    page = Tree(report.read_text()).root
    panels = [node for node in page.all("div") if node.attributes.get("class") == "panel"]
    expected: dict[str, list[str]] = {"0": [], "1": []}
    for panel in panels:
        expected[panel.attributes["data-setting"]] += plots_in(panel)
    assert sum(map(len, expected.values())) == len(figures_of(page))
    assert (tab.value(SHOWN), tab.value(DRAWN)) == (["0"] * 6, expected["0"])
    assert tab.value("document.querySelectorAll('details[open]').length") == 0

    tab.value("document.querySelector('input[name=setting]').focus()")
    tab.press("ArrowRight", 39)
    assert tab.value(SHOWN) == ["1"] * 6
    assert set(tab.value(DRAWN)) == set(expected["0"] + expected["1"])
    assert tab.events_of(*TOLD) == []


def test_first_tab_skips_to_the_content(report: Path, tab: chromium.Page) -> None:
    opened(tab, report)
    tab.press("Tab", 9)
    place = "(({left, top}) => left >= 0 && top >= 0)(document.activeElement.getBoundingClientRect())"
    assert tab.value("[document.activeElement.hash, getComputedStyle(document.activeElement).outlineStyle]") == [
        "#main",
        "solid",
    ]
    assert tab.value(place)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_both_themes_reach_into_the_plots(report: Path, tab: chromium.Page, theme: str) -> None:
    opened(tab, report, theme=theme)
    page = hexadecimal(tab.value("getComputedStyle(document.body).backgroundColor"))
    assert page == dict(zip(("light", "dark"), style.BACKGROUNDS, strict=True))[theme]
    texts = ".xtick text, .ytick text, .legendtext, .bartext-outside, .annotation-text"
    fills = tab.value(STYLES.format(texts, "fill"))
    assert len(fills) > 50
    assert all(contrast(hexadecimal(fill), page) >= 4.5 for fill in set(fills))
    inside = tab.value(STYLES.format(".bartext-inside", "fill"))
    assert {hexadecimal(fill) for fill in inside} == {"#000000"}


def hexadecimal(colour: str) -> str:
    red, green, blue = re.findall(r"\d+", colour)[:3]
    return f"#{int(red):02x}{int(green):02x}{int(blue):02x}"


def test_narrow_window_scrolls_tables_and_not_the_page(report: Path, tab: chromium.Page) -> None:
    opened(tab, report, width=400)
    assert tab.value("document.documentElement.scrollWidth") <= 400
    assert tab.value("[...document.querySelectorAll('.plot svg.main-svg')].every((svg) => svg.clientWidth <= 400)")
    assert tab.value("[...document.querySelectorAll('.scroll')].some((box) => box.scrollWidth > box.clientWidth)")


def test_paper_is_light_and_cuts_nothing(report: Path, tab: chromium.Page) -> None:
    opened(tab, report, theme="dark")
    tab.call("Emulation.setEmulatedMedia", media="print", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    tab.call("Emulation.setDeviceMetricsOverride", width=700, height=1000, deviceScaleFactor=1, mobile=False)
    assert hexadecimal(tab.value("getComputedStyle(document.body).backgroundColor")) == style.BACKGROUNDS[0]
    assert tab.value("[...document.querySelectorAll('.plot svg')].every((svg) => svg.clientWidth <= 720)")
    assert set(tab.value(STYLES.format("figure, tr", "breakInside"))) == {"avoid"}
    assert set(tab.value(STYLES.format(".scroll", "overflowX"))) == {"visible"}
    assert tab.pdf().startswith(b"%PDF")


def test_names_for_those_who_do_not_see_it(report: Path, tab: chromium.Page) -> None:
    """In the tree that a screen reader gets."""
    opened(tab, report)
    nodes = [node for node in tab.call("Accessibility.getFullAXTree")["nodes"] if not node["ignored"]]
    named = [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes]
    assert {"main", "navigation", "banner", "contentinfo", "radio", "table", "region"} <= {role for role, _ in named}
    wanted = {"image", "region", "radio", "link", "table", "navigation"}
    assert [role for role, name in named if role in wanted and not name] == []
    assert sum(role == "image" for role, _ in named) == len(tab.value(DRAWN))
    assert not {role for role, _ in named if role.startswith("Svg")}


def test_without_scripts_all_tables_are_open(report: Path, tab: chromium.Page) -> None:
    tab.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        tab.open(report)
        nodes = tab.call("Accessibility.getFullAXTree")["nodes"]
        names = [node.get("name", {}).get("value", "") for node in nodes if not node["ignored"]]
        roles = [node["role"]["value"] for node in nodes if not node["ignored"]]
    finally:
        tab.call("Emulation.setScriptExecutionDisabled", value=False)
    page = Tree(report.read_text()).root
    assert roles.count("table") == len(page.all("table"))
    assert roles.count("image") == roles.count("radio") == 0
    assert any("The plots need JavaScript" in name for name in names)
