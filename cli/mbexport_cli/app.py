"""The Typer application: one file per command, put together here."""

from typing import Annotated

import typer

from mbexport_cli import bench, build, doctor, info, profile, run, validate
from mbexport_cli import list as list_
from mbexport_cli.options import command

app = typer.Typer(
    help="Build any Keras MobileNet, export it to a clean ONNX graph, prove it correct on each runtime, and time it.",
    epilog="Example: mbexport run --variant large --alpha 0.75",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
profiles = typer.Typer(help="Read profiles.", epilog="Example: mbexport profile show", no_args_is_help=True)


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"mbexport {version('mbexport')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    pass


for module, name in (
    (run, "run"),
    (build, "build"),
    (validate, "validate"),
    (bench, "bench"),
    (list_, "list"),
    (info, "info"),
    (doctor, "doctor"),
):
    app.command(name, epilog=module.EPILOG)(command(module.main))
profiles.command("show", epilog=profile.EPILOG)(command(profile.show))
app.add_typer(profiles, name="profile")
