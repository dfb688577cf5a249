"""Reading the user's containers, zip and HDF5, so that a damaged or hostile one is an InputError."""

from __future__ import annotations

import contextlib
import zipfile
import zlib
from typing import TYPE_CHECKING, BinaryIO

from mbexport.errors import InputError
from mbexport.thresholds import ARCHIVE_MAX_RATIO

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HDF5_HEAD = b"\x89HDF\r\n\x1a\n"


@contextlib.contextmanager
def opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """A ``.keras`` file.

    Raises:
        InputError: no zip archive; or, from what is done within, a damaged one, or one packed in an unknown way.
    """
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        hint = "; its contents are HDF5: name it .h5" if _is_hdf5(path) else ""
        raise InputError(f"{path} is not a .keras file, or a truncated one ({error}){hint}") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    with archive:
        try:
            yield archive
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError) as error:
            raise InputError(f"{path} is damaged ({error}); save the model again") from error


def unpacked(archive: zipfile.ZipFile, path: Path, name: str) -> bytes:
    """What is stored under ``name``, unless it unpacks to something huge.

    Raises:
        InputError: it does.
    """
    info, packed_bytes = archive.getinfo(name), path.stat().st_size
    if info.file_size > ARCHIVE_MAX_RATIO * packed_bytes:
        raise InputError(
            f"{path} says that its {packed_bytes:,} bytes hold {info.file_size:,}, in {name}: no Keras model does that"
        )
    with archive.open(info) as packed:
        return packed.read(info.file_size + 1)  # a size for zlib to stop at, should the data go on


def refuse_links(path: Path, hdf5: Path | BinaryIO) -> None:
    """Raise where the HDF5 contents of ``path`` are to be read from other files of the machine.

    Raises:
        InputError: an external link, or a dataset that is external or virtual; or the contents are damaged.
    """
    import h5py

    found: list[str] = []  # for HDF5 lets no exception through

    def check_link(name: str, link: object) -> None:
        if isinstance(link, h5py.ExternalLink):
            found.append(name)

    def check_dataset(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset) and (item.external or item.is_virtual):
            found.append(name)

    try:
        with h5py.File(hdf5, "r") as file:
            file.visititems_links(check_link)
            file.visititems(check_dataset)
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        raise InputError(f"{path} is damaged: its HDF5 contents cannot be read ({error})") from error
    if found:
        raise InputError(f"{path}: {found[0]} refers to another file, which is not read; save the whole model again")


def _is_hdf5(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(8) == HDF5_HEAD
