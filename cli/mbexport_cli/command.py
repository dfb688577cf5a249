"""The decorator that makes a Typer command of a function over option groups."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, get_type_hints

import typer

from mbexport.errors import MbexportError
from mbexport_cli import failures, signals


def command(function: Callable[..., None]) -> Callable[..., None]:
    """Make a Typer command of a function whose parameters may be option groups.

    A parameter annotated with one of the dataclasses of ``options`` becomes that dataclass's options. An
    :class:`MbexportError` becomes its one or two lines on stderr and its exit code.
    """
    hints = get_type_hints(function, include_extras=True)
    groups: dict[str, Any] = {name: hint for name, hint in hints.items() if is_dataclass(hint)}

    @functools.wraps(function)
    def run(**given: Any) -> None:
        try:
            for name, group in groups.items():
                given[name] = group(**{field.name: given.pop(field.name) for field in fields(group)})
            function(**given)
        except MbexportError as error:
            if signals.interrupted():
                raise KeyboardInterrupt from error
            raise typer.Exit(failures.report(error, verbose=given["verbose"])) from error

    parameters = _spread(function, hints)
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def _spread(function: Callable[..., None], hints: dict[str, Any]) -> list[inspect.Parameter]:
    parameters = []
    for name, parameter in inspect.signature(function).parameters.items():
        hint = hints[name]
        if not is_dataclass(hint):
            parameters.append(parameter.replace(annotation=hint, kind=inspect.Parameter.KEYWORD_ONLY))
            continue
        annotations = get_type_hints(hint, include_extras=True)
        for field in fields(hint):
            assert field.default is not MISSING, f"option {field.name} needs a default"
            parameters.append(
                inspect.Parameter(
                    field.name,
                    inspect.Parameter.KEYWORD_ONLY,
                    default=field.default,
                    annotation=annotations[field.name],
                )
            )
    return parameters
