"""The Typer application: one file per command, put together here."""

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from mbexport_cli import (
    bench,
    build,
    bundle,
    cache,
    compare,
    convert,
    doctor,
    evaluate,
    info,
    pipeline,
    predict,
    profile,
    profile_diff,
    profile_merge,
    profile_predict,
    profile_recommend,
    profile_report,
    publish,
    quantize,
    rebuild,
    run,
    sweep,
    tune,
    validate,
    verify,
)
from mbexport_cli import list as list_
from mbexport_cli.command import command


class _Group(TyperGroup):
    """Gives flags that were not given the value False instead of None.

    Typer's own flags (help, shell completion) start as None, and to read None as a flag Typer imports pydantic, which
    takes half as long as all the rest of ``mbexport doctor --help``.
    """

    def get_params(self, ctx: Any) -> Any:
        parameters = super().get_params(ctx)
        for parameter in parameters:
            if getattr(parameter, "is_flag", False) and parameter.default is None:
                parameter.default = False
        return parameters


app = typer.Typer(
    cls=_Group,
    help="Build any Keras MobileNet, export it to a clean ONNX graph, prove it correct on each runtime, and time it.",
    epilog="Example: mbexport run --variant large --alpha 0.75",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
profiles = typer.Typer(
    cls=_Group, help="Read and merge profiles.", epilog="Example: mbexport profile show", no_args_is_help=True
)


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
    (convert, "convert"),
    (validate, "validate"),
    (compare, "compare"),
    (bench, "bench"),
    (tune, "tune"),
    (quantize, "quantize"),
    (evaluate, "evaluate"),
    (predict, "predict"),
    (bundle, "bundle"),
    (verify, "verify"),
    (rebuild, "rebuild"),
    (publish, "publish"),
    (sweep, "sweep"),
    (list_, "list"),
    (info, "info"),
    (doctor, "doctor"),
):
    app.command(name, epilog=module.EPILOG)(command(module.main))
profiles.command("show", epilog=profile.EPILOG)(command(profile.show))
profiles.command("diff", epilog=profile_diff.EPILOG)(command(profile_diff.main))
profiles.command("merge", epilog=profile_merge.EPILOG)(command(profile_merge.main))
profiles.command("recommend", epilog=profile_recommend.EPILOG)(command(profile_recommend.main))
profiles.command("predict", epilog=profile_predict.EPILOG)(command(profile_predict.main))
profiles.command("report", epilog=profile_report.EPILOG)(command(profile_report.main))
app.add_typer(profiles, name="profile")
kept = typer.Typer(
    cls=_Group,
    help="What is kept of earlier builds.",
    epilog="Example: mbexport cache list",
    no_args_is_help=True,
)
kept.command("list", epilog=cache.LIST_EPILOG)(command(cache.show))
kept.command("prune", epilog=cache.PRUNE_EPILOG)(command(cache.prune))
app.add_typer(kept, name="cache")
pipelines = typer.Typer(
    cls=_Group,
    help="Check, plan and run a pipeline file: networks, what they must hold, and where they go.",
    epilog="Example: mbexport pipeline plan mbexport.toml",
    no_args_is_help=True,
)
pipelines.command("check", epilog=pipeline.CHECK_EPILOG)(command(pipeline.check))
pipelines.command("plan", epilog=pipeline.PLAN_EPILOG)(command(pipeline.plan))
pipelines.command("run", epilog=pipeline.RUN_EPILOG)(command(pipeline.run))
app.add_typer(pipelines, name="pipeline")
