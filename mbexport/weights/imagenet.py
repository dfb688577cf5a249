"""Keras's ImageNet weights: its own files, its own cache, its own hashes.

The download is not left to ``keras.utils.get_file``: that imports TensorFlow first, waits for a server as long as the
system does, and writes to the file's final name while the download runs.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import threading
import urllib.error
import urllib.request
from concurrent.futures import Future
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING

from mbexport import pretrained, serde, thresholds
from mbexport.errors import MissingDownloadError, WeightsError
from mbexport.manifest import WeightsOrigin

if TYPE_CHECKING:
    import keras

    from mbexport.spec import ModelSpec

HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_V3_PREFIX = "weights_mobilenet_v3_"


def check(spec: ModelSpec) -> None:
    """Refuse what has no ImageNet weights; cheap, and before any download.

    Raises:
        SpecError: there are none for this network.
    """
    pretrained.checkpoint(spec)


def fetch(spec: ModelSpec) -> Path:
    """The file in Keras's cache, downloaded where it is not there yet.

    Needs no TensorFlow before there is a download to check: Keras keeps its hashes.

    Raises:
        MissingDownloadError: it cannot be downloaded, or what comes is another file; says where to put it by hand.
        OutputError: the cache cannot be written to.
        SpecError: there are no such weights.
    """
    wanted = pretrained.checkpoint(spec)
    path = cache_path(wanted.file)
    if path.is_file():
        return path
    try:
        data = _download(wanted.url)
    except (OSError, HTTPException) as error:
        raise _missing(wanted, path, _reason(error)) from error
    if not data.startswith(HDF5_SIGNATURE):
        raise _missing(wanted, path, "the answer is not an HDF5 file")
    wrong = _wrong_hash(data, _keras_hash(wanted.file, include_top=spec.include_top))
    if wrong:
        raise _missing(wanted, path, f"the answer is not Keras's file: {wrong}")
    serde.write_atomic(path, data)
    return path


def load(model: keras.Model, spec: ModelSpec) -> WeightsOrigin:
    """Set every weight of ``model``, which is ``spec``'s, from Keras's file.

    Raises:
        MissingDownloadError: the file is not in the cache and cannot be downloaded.
        SpecError: there are no such weights.
        WeightsError: the file in the cache is not the one that Keras knows, or is damaged.
    """
    from mbexport.weights import keras_file

    wanted = pretrained.checkpoint(spec)
    path = fetch(spec)
    _check_hash(path, _keras_hash(wanted.file, include_top=spec.include_top))
    try:
        sha256 = keras_file.set_weights(model, path)
    except WeightsError as error:  # V2's files have no hash that would have shown it
        raise WeightsError(
            f"{error};\nthe file is Keras's cached one: delete it, so that it is downloaded again"
        ) from error
    trained_at = None if spec.size == (wanted.side_px, wanted.side_px) else f"trained at {wanted.side_px} pixels"
    return WeightsOrigin(kind="imagenet", file=path.name, sha256=sha256, note=trained_at)


def cache_path(file: str) -> Path:
    """Where Keras keeps a weights file: under ``$KERAS_HOME`` or ``~/.keras``, or, where neither can be written to,
    under the folder for temporary files. A file that is there is found in a read-only folder too.
    """
    home = Path(os.environ.get("KERAS_HOME") or "~/.keras").expanduser().absolute()
    path = home / "models" / file
    above = next(folder for folder in (home, *home.parents) if folder.exists())
    if path.is_file() or os.access(above, os.W_OK):
        return path
    return Path(tempfile.gettempdir()) / ".keras" / "models" / file


def _missing(wanted: pretrained.Checkpoint, path: Path, reason: str) -> MissingDownloadError:
    return MissingDownloadError(
        f"{wanted.file} is not in Keras's cache, and {wanted.url} cannot be had ({reason});\n"
        f"download it elsewhere and put it at {path}, or give --weights random"
    )


def _reason(error: OSError | HTTPException) -> str:
    if isinstance(error, urllib.error.URLError) and not isinstance(error, urllib.error.HTTPError):
        return str(error.reason)
    return str(error) or type(error).__name__


def _download(url: str) -> bytes:
    """The whole answer. Names are looked up and connections made in a thread: both can outlast any timeout of theirs.

    Raises:
        HTTPException: the answer is cut short.
        OSError: no answer in time, or an error for an answer.
    """
    answered = threading.Event()
    whole: Future[bytes] = Future()
    whole.add_done_callback(lambda _: answered.set())

    def get() -> None:
        try:
            with urllib.request.urlopen(url, timeout=thresholds.DOWNLOAD_STALL_S) as response:  # noqa: S310  a constant
                answered.set()
                whole.set_result(response.read())
        except BaseException as error:  # noqa: BLE001  raised again by result(), in the caller's thread
            if isinstance(error, urllib.error.HTTPError):
                error.close()  # it is the response as well
            whole.set_exception(error)

    threading.Thread(target=get, daemon=True).start()
    if not answered.wait(thresholds.DOWNLOAD_ANSWER_S):
        raise TimeoutError(f"no answer within {thresholds.DOWNLOAD_ANSWER_S:g} s")
    return whole.result()


def _keras_hash(file: str, *, include_top: bool) -> str | None:
    """The hash that the installed Keras expects; it has none for V2."""
    if not file.startswith(_V3_PREFIX):
        return None
    from keras.src.applications.mobilenet_v3 import WEIGHTS_HASHES

    name = file.removeprefix(_V3_PREFIX).removesuffix(".h5").removesuffix("_no_top_v2")
    with_top, without_top = WEIGHTS_HASHES.get(name, (None, None))
    found: str | None = with_top if include_top else without_top
    return found


def _check_hash(path: Path, expected: str | None) -> None:
    try:
        wrong = _wrong_hash(path.read_bytes(), expected)
    except OSError as error:
        raise WeightsError(f"weights file {path} cannot be read: {error.strerror}") from error
    if wrong:
        raise WeightsError(
            f"{path} is not Keras's file: {wrong}; "
            "delete it, so that it is downloaded again, or put the right one there"
        )


def _wrong_hash(data: bytes, expected: str | None) -> str | None:
    """How the hash of ``data`` differs from the expected one; None where it does not, or none is expected."""
    if expected is None:
        return None
    algorithm = "sha256" if len(expected) == 64 else "md5"  # Keras's rule
    found = hashlib.new(algorithm, data, usedforsecurity=False).hexdigest()
    return None if found == expected else f"its {algorithm} is {found}, Keras expects {expected}"
