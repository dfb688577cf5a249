"""``mbexport verify``."""

from pathlib import Path
from typing import Annotated

import typer

from mbexport_cli.options import Json, RuntimeOptions, Verbose

EPILOG = "Example: mbexport verify small.zip"


def main(
    bundle: Annotated[Path, typer.Argument(help="A file that `mbexport bundle` made, or its URL.", metavar="FILE")],
    where: RuntimeOptions,
    key: Annotated[
        Path | None,
        typer.Option(help="Public key (elliptic curve, PEM) that must have signed it.", metavar="KEY"),
    ] = None,
    *,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Check a bundle: every byte, every document in it, and Keras's answers on the runtimes here.

    A file that is damaged, altered or hostile is refused (exit 2), and the member is named. A wrong answer or a
    signature that does not hold is exit 1. Without --key a signature is reported and not checked.
    """
    from mbexport_cli import render
    from mbexport_cli.screen import screen

    with screen(verbose=verbose) as own:
        import msgspec

        from mbexport.bench.plan import choose_threads
        from mbexport.bundle.verify import verify
        from mbexport.hardware import usable_threads
        from mbexport.remote import local, url_of
        from mbexport.runtimes import resolve_targets

        targets = resolve_targets(where.runtime)
        threads = choose_threads(where.threads, usable_threads())
        with own.progress() as progress:
            report = verify(local(bundle), targets, key=key, threads=threads, progress=progress)
        report = msgspec.structs.replace(report, bundle=url_of(bundle) or report.bundle)
        own.result(report, render.verified(report), json=json)
    if not report.passed:
        raise typer.Exit(1)
