"""What the user sees when something goes wrong, and the exit code for it."""

import sys
import traceback

import typer

from mbexport.errors import MbexportError
from mbexport_cli import signals

USAGE = 2
MISSING = 3
INTERRUPTED = 130
BUG = 1


def report(error: BaseException, *, verbose: bool) -> int:
    """Say in one or two lines on stderr what went wrong, after the traceback with ``verbose``; the exit code for it."""
    if signals.interrupted():
        error = KeyboardInterrupt()
    if verbose and not isinstance(error, KeyboardInterrupt | typer.Abort):
        traceback.print_exception(error, file=sys.stderr)
    lines, code = _explain(error, verbose=verbose)
    sys.stderr.writelines(f"{line}\n" for line in lines)
    return code


def _explain(error: BaseException, *, verbose: bool) -> tuple[list[str], int]:
    if isinstance(error, MbexportError):
        from mbexport.remote import as_given

        return [f"error: {as_given(str(error))}"], error.exit_code
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        return ["interrupted"], INTERRUPTED
    if isinstance(error, typer.TyperException):
        return _usage(error), error.exit_code
    if isinstance(error, ModuleNotFoundError):  # a part of the base install; what the extras need says so itself
        return [f"error: {error.name} is not installed; pip install --force-reinstall mbexport"], MISSING
    if isinstance(error, MemoryError):
        return ["error: too little memory for that here; choose a smaller --alpha, --resolution or --batch"], USAGE
    hint = [] if verbose else ["this is a bug in mbexport; run again with -v for the traceback"]
    return [f"error: {type(error).__name__}: {' '.join(str(error).split())}", *hint], BUG


def _usage(error: typer.TyperException) -> list[str]:
    context: typer.Context | None = getattr(error, "ctx", None)
    message = " ".join(error.format_message().split())
    if not message:  # a bare `mbexport` has printed its help
        return []
    return [f"error: {message}", *([f"see: {context.command_path} --help"] if context else [])]
