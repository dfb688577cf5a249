"""All rich output. Times are shown in milliseconds, sizes in MB; nothing is ever cut or wrapped to fit a terminal.

Every table is narrower than 80 columns with the names and figures that occur; what has no such limit (reasons, paths)
stands on lines of its own below the table.
"""

from mbexport_cli.render.build import build, pass_step
from mbexport_cli.render.bundle import bundled, laid_out, published, rebuilt, verified
from mbexport_cli.render.cache import cached, pruned
from mbexport_cli.render.catalog import catalogue, checkpoints, info
from mbexport_cli.render.compare import compared
from mbexport_cli.render.console import live, write
from mbexport_cli.render.diff import changes
from mbexport_cli.render.doctor import diagnosis
from mbexport_cli.render.evaluate import evaluated
from mbexport_cli.render.explain import layers_svg
from mbexport_cli.render.latency import benched, taken_over_text
from mbexport_cli.render.merge import merged
from mbexport_cli.render.operators import operators
from mbexport_cli.render.pipeline import checked, piped, planned
from mbexport_cli.render.predict import predicted
from mbexport_cli.render.quantize import quantized
from mbexport_cli.render.recommend import latency_predicted, recommended
from mbexport_cli.render.report import reported
from mbexport_cli.render.results import profiles, run, validated
from mbexport_cli.render.sweep import LiveCells, live_cells, swept
from mbexport_cli.render.tune import tuned

__all__ = [
    "LiveCells",
    "benched",
    "build",
    "bundled",
    "cached",
    "catalogue",
    "changes",
    "checked",
    "checkpoints",
    "compared",
    "diagnosis",
    "evaluated",
    "info",
    "laid_out",
    "latency_predicted",
    "layers_svg",
    "live",
    "live_cells",
    "merged",
    "operators",
    "pass_step",
    "piped",
    "planned",
    "predicted",
    "profiles",
    "pruned",
    "published",
    "quantized",
    "rebuilt",
    "recommended",
    "reported",
    "run",
    "swept",
    "taken_over_text",
    "tuned",
    "validated",
    "verified",
    "write",
]
