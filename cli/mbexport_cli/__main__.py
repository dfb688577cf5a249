"""``mbexport`` and ``python -m mbexport_cli``: run the application and turn what goes wrong into words and a code."""

import os
import sys

from mbexport_cli import signals

_TOLD_VERBOSE = {"-v", "--verbose"}


def main() -> None:
    """The console script. Exit codes: 0 done, 1 a check failed (or a bug), 2 bad input, 3 missing, 130 interrupted."""
    signals.install()
    verbose = not _TOLD_VERBOSE.isdisjoint(sys.argv[1:])
    try:
        from mbexport_cli import streams

        streams.take_over(verbose=verbose)
        code = _run(verbose=verbose)
        sys.stdout.flush()
    except KeyboardInterrupt:  # while Python still starts
        sys.stderr.write("interrupted\n")
        code = 130
    except BrokenPipeError:  # the reader, such as `head`, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    sys.exit(code)


def _run(*, verbose: bool) -> int:
    from mbexport_cli import failures
    from mbexport_cli.app import app

    try:
        code = app(prog_name="mbexport", standalone_mode=False)
    except BrokenPipeError:
        raise
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - the outermost place: reported, never hidden
        return failures.report(error, verbose=verbose)
    if code == failures.INTERRUPTED:  # Typer has turned the interrupt into this code
        sys.stderr.write("interrupted\n")
    return code if isinstance(code, int) else 0


if __name__ == "__main__":
    main()
