"""``mbexport cache list`` and ``mbexport cache prune``."""

from typing import Annotated

import typer

from mbexport.errors import InputError
from mbexport_cli.options import Json, Verbose

LIST_EPILOG = "Example: mbexport cache list"
PRUNE_EPILOG = "Example: mbexport cache prune --max-size 2GB"
_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


def size_bytes(text: str) -> int:
    """``500MB`` -> 500,000,000.

    Raises:
        InputError: not a number of at least 0 with one of the units.
    """
    import re

    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?B?)", text.strip(), flags=re.IGNORECASE)
    unit = found and found[2].upper()
    if found is None or unit not in _UNITS:
        raise InputError(f"--max-size must be a size such as 500MB or 2GB, not {text!r}")
    return round(float(found[1]) * _UNITS[unit])


def show(*, json: Json = False, verbose: Verbose = False) -> None:
    """What is kept of earlier builds, the one used last first, and where."""
    from mbexport_cli import render
    from mbexport_cli.screen import screen

    with screen(verbose=verbose) as own:
        from mbexport.cache import Cache, cache_root

        root = cache_root()
        entries = Cache(root).entries()
        own.result({"path": str(root), "entries": entries}, render.cached(root, entries), json=json)


def prune(
    max_size: Annotated[str, typer.Option(help="What may stay.", metavar="SIZE")],
    *,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Remove what is damaged, and the entries that were not used for longest until the rest fits."""
    from mbexport_cli import render
    from mbexport_cli.screen import screen

    with screen(verbose=verbose) as own:
        from mbexport.cache import Cache, cache_root

        root, most_bytes = cache_root(), size_bytes(max_size)
        removed = Cache(root).prune(most_bytes)
        own.result({"path": str(root), "removed": removed}, render.pruned(root, removed), json=json)
