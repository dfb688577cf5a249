"""All rich output. Times are shown in milliseconds, sizes in MB; nothing is ever cut or wrapped to fit a terminal.

Every table is narrower than 80 columns with the names and figures that occur; what has no such limit (reasons, paths)
stands on lines of its own below the table.
"""

from mbexport_cli.render.build import build, pass_step
from mbexport_cli.render.catalog import catalogue, checkpoints, info
from mbexport_cli.render.compare import compared
from mbexport_cli.render.console import live, write
from mbexport_cli.render.doctor import diagnosis
from mbexport_cli.render.evaluate import evaluated
from mbexport_cli.render.explain import layers_svg
from mbexport_cli.render.predict import predicted
from mbexport_cli.render.results import benched, profiles, run, validated

__all__ = [
    "benched",
    "build",
    "catalogue",
    "checkpoints",
    "compared",
    "diagnosis",
    "evaluated",
    "info",
    "layers_svg",
    "live",
    "pass_step",
    "predicted",
    "profiles",
    "run",
    "validated",
    "write",
]
