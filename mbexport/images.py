"""A picture file as the network sees it: decoded, turned upright, resized, cropped, and in the input's form."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING, Any

import numpy as np

from mbexport.errors import InputError, PictureError
from mbexport.spec import BASE_SIZE_PX, SPATIAL_AXES
from mbexport.thresholds import PICTURE_MAX_PIXELS

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from PIL import Image

    from mbexport.manifest import InputContract

FORMATS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png",),
    "WEBP": (".webp",),
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "JPEG2000": (".jp2", ".j2k"),
}
"""Pillow's name of each format that is read, and its suffixes in folders. Formats that run programs are left out."""
SUFFIXES = frozenset(suffix for suffixes in FORMATS.values() for suffix in suffixes)

CROP_SHARE = 0.875
"""How much of the resized picture's shorter side the crop keeps: ImageNet's usual 224 of 256."""
_MODES = {1: "L", 3: "RGB"}


def is_picture(path: Path) -> bool:
    """Whether a file of a folder is taken for a picture: by its suffix, and hidden files never."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def picture_size(contract: InputContract) -> tuple[int, int]:
    """Height and width in pixels that pictures are cropped to; 224x224 where the network takes any size."""
    height, width = (contract.shape[axis] for axis in SPATIAL_AXES[contract.layout])
    return BASE_SIZE_PX if height is None or width is None else (height, width)


def picture(path: Path, contract: InputContract) -> NDArray[np.uint8]:
    """Decode one picture and bring it to the network's size.

    It is turned upright by its EXIF orientation; transparency is dropped, and of 16 bits the upper 8 are kept. A TIFF's
    32 bits are taken for 16, or for 8 where no number is above 255. Then it is resized with Pillow's bilinear filter,
    up or down, until its shorter side has ``contract.resize_px`` pixels, and the centre is cut out. Where height and
    width of the network differ, the picture is made to cover the rectangle of the same proportions whose shorter side
    has that many pixels.

    Returns:
        (height, width, channels), 0..255, red first; one channel where the network takes grey pictures.

    Raises:
        PictureError: the file is missing, damaged, not a picture, or too large.
        InputError: the network takes neither one nor three channels.
    """
    channels = contract.shape[-1 if contract.layout == "nhwc" else 1]
    if channels not in _MODES:
        raise InputError(f"the network takes pictures of {channels} channels, and picture files hold 1 or 3")
    height, width = picture_size(contract)
    shorter_px = contract.resize_px or round(min(height, width) / CROP_SHARE)
    decoded = _decode(path, _MODES[channels])
    resized = decoded.resize(_covering(path, decoded.size, (width, height), shorter_px), _bilinear())
    left, top = (resized.width - width) // 2, (resized.height - height) // 2
    cropped = resized.crop((left, top, left + width, top + height))
    return np.asarray(cropped).reshape(height, width, channels)


def network_input(pictures: NDArray[np.uint8], contract: InputContract) -> NDArray[Any]:
    """Pictures (N, height, width, channels), 0..255, red first, in the type, layout and scaling of the network's input.

    Raises:
        InputError: the input is neither float32 nor uint8.
    """
    if contract.type not in {"float32", "uint8"}:
        raise InputError(f"the network's input is {contract.type}; pictures go in as float32 or uint8")
    shown = pictures[..., ::-1] if contract.colour_order == "BGR" else pictures
    if contract.layout == "nchw":
        shown = shown.transpose(0, 3, 1, 2)
    if contract.type == "uint8":
        return np.ascontiguousarray(shown)
    values = shown.astype(np.float32, order="C")
    if (contract.mean, contract.scale) != (0, 1):
        values -= np.float32(contract.mean)
        values /= np.float32(contract.scale)
    return values


def _bilinear() -> Image.Resampling:
    from PIL import Image

    return Image.Resampling.BILINEAR


def _covering(path: Path, old: tuple[int, int], crop: tuple[int, int], shorter_px: int) -> tuple[int, int]:
    """(width, height) to resize to, from (width, height) of the picture and of the crop."""
    scale = max(shorter_px * side / min(crop) / now for side, now in zip(crop, old, strict=True))
    width, height = round(old[0] * scale), round(old[1] * scale)
    if width * height > PICTURE_MAX_PIXELS:
        raise PictureError(path, f"is too narrow: {old[0]}x{old[1]} pixels would become {width}x{height}")
    return width, height


def _decode(path: Path, mode: str) -> Image.Image:
    """The picture, upright, in Pillow's mode ``RGB`` or ``L``."""
    from PIL import Image, UnidentifiedImageError

    try:
        return _open(path, mode)
    except PictureError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large(path) from error
    except UnidentifiedImageError as error:
        raise PictureError(path, f"is not a picture of a kind that is read: {', '.join(FORMATS)}") from error
    except Exception as error:  # Pillow's decoders raise whatever they stumble over; their errors share no base
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise PictureError(path, f"cannot be read: {' '.join(reason.split())}") from error


def _open(path: Path, mode: str) -> Image.Image:
    from PIL import Image, ImageOps

    if not stat.S_ISREG(path.stat().st_mode):  # reading from a pipe would wait for ever
        raise PictureError(path, "is not a file")
    with Image.open(path, formats=tuple(FORMATS)) as opened:
        if opened.width * opened.height > PICTURE_MAX_PIXELS:
            raise _too_large(path)
        ImageOps.exif_transpose(opened, in_place=True)
        return _with_mode(opened, mode)


def _too_large(path: Path) -> PictureError:
    return PictureError(path, f"is too large: more than {PICTURE_MAX_PIXELS / 1e6:.0f} million pixels")


def _with_mode(opened: Image.Image, mode: str) -> Image.Image:
    """Pillow itself clips what has more than 8 bits, and warns of palettes with transparency."""
    from PIL import Image

    if opened.mode == "F":
        raise ValueError("it holds floating-point numbers of unknown range; save it with 8 or 16 bits")
    if opened.mode.startswith("I"):
        values = np.asarray(opened).clip(0, 2**16 - 1)
        # In mode I Pillow gives 16-bit PNG and PGM too: TIFF alone stores 32 bits, of whatever range.
        is_8_bit = opened.format == "TIFF" and opened.mode == "I" and values.max() <= 255
        opened = Image.fromarray((values if is_8_bit else values >> 8).astype(np.uint8))
    elif opened.mode in {"P", "PA"}:
        opened = opened.convert("RGBA")
    return opened if opened.mode == mode else opened.convert(mode)
