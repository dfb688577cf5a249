"""The page: words, sections, style and scripts in one file that asks for nothing else."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, field
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING, NamedTuple

from mbexport.analysis.report import (
    accuracy,
    cold,
    distributions,
    heat,
    machine,
    memory,
    parts,
    runtimes,
    style,
    text,
    tuned,
)
from mbexport.errors import MissingPackageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from mbexport.analysis.report.data import ReportData, Row, Series, Setting

_DESCRIPTION = "Measured latencies of MobileNets on one machine: accuracy, distributions, cold start and memory."


class _Section(NamedTuple):
    anchor: str
    heading: str
    introduction: str
    panel: Callable[[Sequence[Row], Mapping[Series, style.Style]], parts.Panel]


_SECTIONS = (
    _Section(
        "accuracy",
        "Accuracy against latency",
        "Up and to the left is better. Top-1 is what was published for the network's ImageNet checkpoint in float32, "
        "not measured here: a narrower precision may cost some of it. Where both modes ran in one precision, parity "
        "stands for both.",
        accuracy.panel,
    ),
    _Section(
        "distributions",
        "Latency distributions",
        "The share of calls that took no longer than so many milliseconds, for each network. A steep curve is a steady "
        "latency, a step two speeds, a long top end a tail. The horizontal axes are logarithmic and differ.",
        distributions.panel,
    ),
    _Section("runtimes", "Runtimes side by side", "Median latency; shorter is better.", runtimes.panel),
    _Section(
        "cold-start",
        "Cold start",
        "What a fresh process takes until its first answer: starting Python, importing the engine, reading and "
        "compiling the network, computing once. Each part is the median over the processes.",
        cold.panel,
    ),
    _Section(
        "memory",
        "Memory",
        "How much a process grows from the bare engine to the first answer (the median process), and the most that any "
        "process ever held.",
        memory.panel,
    ),
    _Section("grid", "Width and resolution", "p50 in milliseconds over alpha and input resolution.", heat.panel),
)
_ENDS = (("tuned", "Tuned configurations"), ("networks", "Networks"), ("rows", "All rows"))


@dataclass
class _Drawings:
    """The plots so far, by the id of their place."""

    figures: dict[str, str] = field(default_factory=dict)
    tables: int = 0

    def place(self, plot: parts.Plot) -> str:
        name = f"plot-{len(self.figures) + 1}"
        self.figures[name] = plot.figure.to_json()
        return parts.plot_html(plot, name)

    def table(self, table: parts.Table) -> str:
        self.tables += 1
        return parts.table_html(table, f"table-{self.tables}")

    def json(self) -> str:
        body = ",\n".join(f'"{name}": {figure}' for name, figure in self.figures.items())
        return parts.inside_script(f"{{{body}}}")


def html_page(data: ReportData, library: str) -> str:
    """The whole page, with ``library`` from :func:`plotly_source` in it; the same data give the same text."""
    driver = _resource("page.js")
    drawings = _Drawings()
    body = _body(data, drawings)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_policy(library, driver)}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="description" content="{_DESCRIPTION}">
<title>{escape(_title(data))}</title>
<style>
{_resource("page.css")}</style>
</head>
<body>
{body}
<script type="application/json" id="figures">{drawings.json()}</script>
<script>{library}</script>
<script>{driver}</script>
</body>
</html>
"""


def plotly_source() -> str:
    """plotly.js, as the installed Plotly brings it.

    Raises:
        MissingPackageError: Plotly is not installed.
    """
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise MissingPackageError(
            f"the report's plots need plotly ({error}); pip install 'mbexport[report]'"
        ) from error
    source: str = get_plotlyjs()
    return source


def _policy(*scripts: str) -> str:
    """No network, and no script but these."""
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" for script in scripts
    )
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
        "form-action 'none'"
    )


def _resource(name: str) -> str:
    return files("mbexport.analysis.report").joinpath(name).read_text("utf-8")


def _title(data: ReportData) -> str:
    return f"Latency on {data.hardware.cpu}, {text.count(data.hardware.physical_cores, 'core')}"


def _body(data: ReportData, drawings: _Drawings) -> str:
    look = style.styles(data.series)
    sections = "\n".join(_section(section, data, look, drawings) for section in _SECTIONS)
    return f"""<a class="skip" href="#main">Skip to the content</a>
<header>
<h1>{escape(_title(data))}</h1>
<p class="lead">{escape(_lead(data))}</p>
<noscript><p class="note">The plots need JavaScript, which is off. Every figure in them is in the tables.</p></noscript>
<nav aria-label="Contents"><ul>{_contents(data)}</ul></nav>
</header>
{_choice(data.settings)}
<main id="main" tabindex="-1">
{_machine_section(data, drawings)}
{sections}
{_tuned_section(data, drawings)}
<section aria-labelledby="networks">
<h2 id="networks">Networks</h2>
<p>Multiply-accumulates and parameters as computed from the architecture; top-1 as published.</p>
{drawings.table(machine.networks_table(data.profiles))}
</section>
<section aria-labelledby="rows" class="wide">
<h2 id="rows">All rows</h2>
{drawings.table(machine.rows_table(data.rows))}
</section>
</main>
<footer><p>Made by mbexport from the profiles of {escape(data.hardware.slug)}, which hold every sample.</p></footer>"""


def _lead(data: ReportData) -> str:
    verdicts = [row.measured.verdict for row in data.rows]
    told = [f"{verdicts.count(word)} {word}" for word in ("ok", "noisy", "invalid") if word in verdicts]
    networks = text.count(len(data.profiles), "network")
    return (
        f"{networks}, {text.count(len(data.rows), 'row')} ({', '.join(told)}), measured {machine.dates(data)} "
        f"on {data.hardware.slug}."
    )


def _contents(data: ReportData) -> str:
    ends = _ENDS if any(profile.tuned for profile in data.profiles) else _ENDS[1:]
    anchors = [("machine", "Machine and method"), *((each.anchor, each.heading) for each in _SECTIONS), *ends]
    return "".join(f'<li><a href="#{anchor}">{escape(heading)}</a></li>' for anchor, heading in anchors)


def _choice(settings: Sequence[Setting]) -> str:
    """Radio buttons, where there is a choice. Without scripts all settings stand in the page, one after the other."""
    if len(settings) == 1:
        return ""
    buttons = "".join(
        f'<label><input type="radio" name="setting" value="{number}"{" checked" if number == 0 else ""}> '
        f"{escape(setting.text)}</label>"
        for number, setting in enumerate(settings)
    )
    return f'<fieldset class="choice"><legend>Plots of</legend>{buttons}</fieldset>'


def _machine_section(data: ReportData, drawings: _Drawings) -> str:
    options = drawings.table(machine.options_table(data.rows))
    return f"""<section aria-labelledby="machine">
<h2 id="machine">Machine and method</h2>
{parts.listing(machine.machine(data))}
{parts.numbered(machine.method(data))}
{parts.details("Options of the engines", options)}
</section>"""


def _tuned_section(data: ReportData, drawings: _Drawings) -> str:
    table = tuned.tuned_table(data.profiles)
    if table is None:
        return ""
    return f"""<section aria-labelledby="tuned" class="wide">
<h2 id="tuned">Tuned configurations</h2>
<p>What <code>mbexport tune</code> found on this machine, over the best float32 configuration of those it tried and over
float32 at the runtime's defaults.</p>
{drawings.table(table)}
</section>"""


def _section(section: _Section, data: ReportData, look: Mapping[Series, style.Style], drawings: _Drawings) -> str:
    panels = "\n".join(
        f'<div class="panel" data-setting="{number}">\n<h3>{escape(setting.text)}</h3>\n'
        f"{_panel_html(section.panel(data.drawn(setting), look), drawings)}\n</div>"
        for number, setting in enumerate(data.settings)
    )
    return f"""<section aria-labelledby="{section.anchor}">
<h2 id="{section.anchor}">{escape(section.heading)}</h2>
<p>{escape(section.introduction)}</p>
{panels}
</section>"""


def _panel_html(panel: parts.Panel, drawings: _Drawings) -> str:
    plots = "\n".join(drawings.place(plot) for plot in panel.plots)
    tables = "\n".join(
        parts.details(f"The same as a table: {table.caption}", drawings.table(table)) for table in panel.tables
    )
    wrapped = f'<div class="cards">\n{plots}\n</div>' if panel.cards and plots else plots
    return f"{panel.legend}{wrapped}\n{parts.numbered(panel.steps)}{parts.paragraphs(panel.notes)}{tables}"
