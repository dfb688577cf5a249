"""Signatures by OpenSSF's model signing, with a key of the user's own and no network.

The unpacked bundle is a signed model folder: ``model_signing verify key FOLDER --signature FOLDER/model.sig`` checks it
as well.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mbexport.bundle.manifest import SIGNATURE
from mbexport.errors import InputError, MissingPackageError

if TYPE_CHECKING:
    from collections.abc import Mapping


def signature(members: Mapping[str, bytes], key: Path) -> bytes:
    """Sign the members.

    Args:
        members: name -> content.
        key: an elliptic curve's private key, PEM, not encrypted.

    Raises:
        InputError: the key cannot be read, or is of another kind.
        MissingPackageError: model-signing is not installed.
    """
    with tempfile.TemporaryDirectory(prefix="mbexport-") as folder:
        root, made = Path(folder, "bundle"), Path(folder, SIGNATURE)
        for name, data in members.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(data)
        signer(key).set_hashing_config(_hashing(root)).sign(root, made)
        return made.read_bytes()


def signer(key: Path) -> Any:
    """What signs with a private key; raises as :func:`signature` does."""
    signing = _import("signing")
    from cryptography.exceptions import UnsupportedAlgorithm

    try:
        return signing.Config().use_elliptic_key_signer(private_key=key)
    except (OSError, ValueError, TypeError, AttributeError, UnsupportedAlgorithm) as error:
        raise InputError(f"--sign {key} is not a private key of an elliptic curve in PEM ({error})") from error


def verifier(key: Path) -> Any:
    """What verifies with a public key.

    Raises:
        InputError: the key cannot be read, or is of another kind.
        MissingPackageError: model-signing is not installed.
    """
    verifying = _import("verifying")
    from cryptography.exceptions import UnsupportedAlgorithm

    try:
        return verifying.Config().use_elliptic_key_verifier(public_key=key)
    except (OSError, ValueError, TypeError, AttributeError, UnsupportedAlgorithm) as error:
        raise InputError(f"--key {key} is not a public key of an elliptic curve in PEM ({error})") from error


def fault(folder: Path, asked: Any) -> str | None:
    """Why the signature in an unpacked bundle does not hold for its files; None where it does.

    Args:
        folder: the bundle, unpacked.
        asked: a :func:`verifier`.
    """
    try:
        asked.set_hashing_config(_hashing(folder)).verify(folder, folder / SIGNATURE)
    except Exception as error:  # noqa: BLE001 - whatever its parsers stumble over, the signature is not valid
        return f"{error or type(error).__name__}"
    return None


def _hashing(folder: Path) -> Any:
    """Every file but the signature, nothing of git's left out."""
    hashing = _import("hashing")
    return hashing.Config().set_ignored_paths(paths=[folder / SIGNATURE], ignore_git_paths=False)


def _import(name: str) -> Any:
    import importlib

    try:
        return importlib.import_module(f"model_signing.{name}")
    except ImportError as error:
        raise MissingPackageError(f"signatures need model-signing ({error}); pip install 'mbexport[sign]'") from error
