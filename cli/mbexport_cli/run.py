"""``mbexport run``: build, validate and bench in one go."""

from pathlib import Path

import typer

from mbexport_cli.network_options import SpecOptions, WeightsOptions
from mbexport_cli.options import ExportGroup, Json, Profiles, RuntimeOptions, Strict, VerboseBuild

EPILOG = "Example: mbexport run --variant large --alpha 0.75"


def main(
    model: SpecOptions,
    origin: WeightsOptions,
    form: ExportGroup,
    where: RuntimeOptions,
    profiles: Profiles = Path("profiles"),
    *,
    strict: Strict = False,
    json: Json = False,
    verbose: VerboseBuild = False,
) -> None:
    """Build a network, prove it correct on each runtime, measure it, and write this machine's profile of it.

    It measures even where a runtime failed the check, and exits 1 then, as where one could not be measured.
    """
    spec, export = model.spec(), form.options()
    from mbexport_cli import documents, render
    from mbexport_cli.screen import screen

    with screen(verbose=verbose) as own:
        from mbexport import bench, pipeline, validate
        from mbexport.bench.plan import choose_threads
        from mbexport.hardware import usable_threads
        from mbexport.runtimes import resolve_targets
        from mbexport.serde import refuse_unwritable

        # Before the build, so that what cannot be measured costs no time.
        targets = resolve_targets(where.runtime)
        threads = choose_threads(where.threads, usable_threads())
        refuse_unwritable(profiles)
        with own.progress() as progress:
            built = pipeline.build(
                spec,
                export=export,
                weights=origin.weights,
                seed=origin.seed,
                out=form.out,
                strict=strict,
                labels=form.labels,
                golden=form.golden,
                progress=progress,
                observe=own.passes(),
            )
            checked = validate.validate(
                built.artifact, targets, threads=threads, progress=lambda target: progress(f"validate {target}")
            )
            settings = bench.Settings(threads=[threads])
            measured = bench.bench([built.artifact], targets, settings, profiles=profiles, progress=progress)
        if measured.taken_over is not None:
            own.note(render.taken_over_text(measured.taken_over))
        own.result(documents.run(built, checked, measured), render.run(built, checked, measured), json=json)
    if measured.failed or not checked.passed:
        raise typer.Exit(1)
