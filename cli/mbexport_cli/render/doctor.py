"""What this machine has."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.console import RenderableType
from rich.text import Text

from mbexport_cli.render.parts import new_table, note

if TYPE_CHECKING:
    from mbexport.doctor import Diagnosis


def diagnosis(found: "Diagnosis") -> Iterator[RenderableType]:
    """What doctor found: the machine, the devices, the packages, and then what to do."""
    yield f"mbexport {found.mbexport}, Python {found.python}"
    yield f"{found.hardware.cpu}: {', '.join(found.threads.reasons)}; {found.threads.threads} threads by default"
    yield f"profiles of this machine: {found.hardware.slug}"
    yield ""
    devices = new_table("device", "usable", "what it is")
    for device in found.devices:
        devices.add_row(device.target, _yes(device.available), device.detail if device.available else "see below")
    yield devices
    for device in found.devices:
        if not device.available:
            yield note(". ".join(filter(None, [f"{device.target}: {device.detail}", device.remedy])))
    yield ""
    packages = new_table("extra", "package", "version")
    for extra in found.extras:
        for package in extra.packages:
            packages.add_row(extra.name, package.name, package.version or Text("not installed", style="yellow"))
    yield packages
    for extra in found.extras:
        if not extra.complete:
            yield note(f"{extra.name} is not complete: {extra.install}")
    yield ""
    for problem in found.problems:
        yield Text(f"broken: {problem.what}", style="bold red")
        yield f"  mend it with: {problem.remedy}"
    if not found.problems:
        yield Text("nothing is broken", style="green")


def _yes(answer: bool) -> Text:
    return Text("yes", style="green") if answer else Text("no", style="yellow")
