from __future__ import annotations

import os
import struct
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from mbexport.errors import InputError, PictureError
from mbexport.images import is_picture, network_input, picture
from tests.colours import contract, paint, truncated

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

USUAL = contract(shape=[None, 224, 224, 3], resize_px=256)


def noise(height: int, width: int, channels: int = 3) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), np.uint8)


def saved(path: Path, array: NDArray[Any]) -> Path:
    Image.fromarray(array).save(path)
    return path


@pytest.mark.parametrize(("height", "width", "top", "left"), [(256, 512, 16, 144), (301, 256, 38, 16)])
def test_a_picture_of_the_right_size_is_only_cropped(
    height: int, width: int, top: int, left: int, tmp_path: Path
) -> None:
    """Its shorter side has 256 pixels already, so the crop must be these very bytes; odd margins are rounded down."""
    pixels = noise(height, width)
    found = picture(saved(tmp_path / "a.png", pixels), USUAL)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, pixels[top : top + 224, left : left + 224])


def test_shrinking_averages(tmp_path: Path) -> None:
    """A chessboard of single pixels becomes grey. Sampling every fourth pixel would give black or white."""
    board = (np.indices((1024, 1024)).sum(axis=0) % 2 * 255).astype(np.uint8)
    found = picture(saved(tmp_path / "a.png", np.stack([board] * 3, axis=-1)), USUAL).astype(int)
    assert found.shape == (224, 224, 3)
    assert abs(found - 127.5).max() < 4


def test_how_far_a_picture_is_shrunk(tmp_path: Path) -> None:
    """Brightness that rises evenly with the column shows where each column came from: 512 -> 256, then 16 cut off."""
    ramp = np.broadcast_to((np.arange(512) // 2).astype(np.uint8)[None, :, None], (512, 512, 3))
    found = picture(saved(tmp_path / "a.png", np.ascontiguousarray(ramp)), USUAL).astype(int)
    assert abs(found[:, :, 0] - np.arange(16, 240)).max() <= 1


@pytest.mark.parametrize("size", [(75, 56), (5, 3), (1, 1)])
def test_small_pictures_are_enlarged_not_padded(size: tuple[int, int], tmp_path: Path) -> None:
    found = picture(paint(tmp_path / "a.png", "red", size), USUAL)
    np.testing.assert_array_equal(found, np.full((224, 224, 3), (230, 20, 20)))


@pytest.mark.parametrize(
    ("size", "shorter_px", "height", "width"), [((292, 219), 219, 219, 292), ((292, 400), 219, 400, 292)]
)
def test_sides_that_differ_are_both_covered(
    size: tuple[int, int], shorter_px: int, height: int, width: int, tmp_path: Path
) -> None:
    """192x256 is cut from what covers 219x292: pictures of 292 pixels' width, upright ones too, keep their scale."""
    pixels = noise(height, width)
    assert size == (width, height)
    taken = contract(shape=[None, 192, 256, 3], resize_px=shorter_px)
    top, left = (height - 192) // 2, (width - 256) // 2
    found = picture(saved(tmp_path / "a.png", pixels), taken)
    np.testing.assert_array_equal(found, pixels[top : top + 192, left : left + 256])


def test_a_network_of_any_size_sees_the_usual_one(tmp_path: Path) -> None:
    taken = contract(shape=[None, None, None, 3], resize_px=None, multiple_of=32)
    path = saved(tmp_path / "a.png", noise(300, 400))
    np.testing.assert_array_equal(picture(path, taken), picture(path, USUAL))


def test_exif_orientation(tmp_path: Path) -> None:
    """Orientation 6: what is stored on the left is shown on top."""
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[:, :32] = (250, 0, 0)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "a.jpg", exif=exif)
    found = picture(tmp_path / "a.jpg", contract()).astype(int)
    assert found[:12, :, 0].min() > 200
    assert found[20:, :, 0].max() < 50


RED = np.full((40, 40, 3), (250, 0, 0), np.uint8)


def transparent_palette(path: Path) -> None:
    paletted = Image.fromarray(RED).quantize(4)
    paletted.save(path, transparency=b"\x80\xff\xff\xff")


DARK_PGM = b"P5 40 40 65535\n" + bytes([0, 200]) * 1600


MODES: dict[str, tuple[str, Callable[[Path], object], tuple[int, int, int]]] = {
    "grey": ("a.png", lambda path: Image.new("L", (40, 40), 90).save(path), (90, 90, 90)),
    "grey with alpha": ("a.png", lambda path: Image.new("LA", (40, 40), (90, 7)).save(path), (90, 90, 90)),
    "black and white": ("a.png", lambda path: Image.new("1", (40, 40), 1).save(path), (255, 255, 255)),
    "alpha": ("a.png", lambda path: Image.new("RGBA", (40, 40), (9, 8, 7, 0)).save(path), (9, 8, 7)),
    "palette": ("a.gif", lambda path: Image.fromarray(RED).save(path), (250, 0, 0)),
    "palette with alpha": ("a.png", transparent_palette, (250, 0, 0)),
    "cmyk": ("a.tif", lambda path: Image.new("CMYK", (40, 40), (0, 255, 255, 0)).save(path), (255, 0, 0)),
    "16 bits": ("a.png", lambda path: saved(path, np.full((40, 40), 90 * 256 + 200, np.uint16)), (90, 90, 90)),
    "16 bits, dark": ("a.png", lambda path: saved(path, np.full((40, 40), 200, np.uint16)), (0, 0, 0)),
    "16 bits, dark, pgm": ("a.pgm", lambda path: path.write_bytes(DARK_PGM), (0, 0, 0)),
    "8 of 32 bits": ("a.tif", lambda path: saved(path, np.full((40, 40), 200, np.int32)), (200, 200, 200)),
    "32 bits": ("a.tif", lambda path: saved(path, np.full((40, 40), 90 * 256 + 200, np.int32)), (90, 90, 90)),
}


@pytest.mark.parametrize("mode", MODES)
def test_every_kind_of_picture_becomes_rgb(mode: str, tmp_path: Path) -> None:
    name, save, colour = MODES[mode]
    save(tmp_path / name)
    found = picture(tmp_path / name, contract())
    np.testing.assert_array_equal(found, np.full((32, 32, 3), colour))


def test_a_network_of_one_channel_sees_grey(tmp_path: Path) -> None:
    path = paint(tmp_path / "a.png", "green")
    for shape, layout in (([None, 32, 32, 1], "nhwc"), ([None, 1, 32, 32], "nchw")):
        found = picture(path, contract(shape=shape, layout=layout, colour_order="grey"))
        assert found.shape == (32, 32, 1)
        # ITU-R BT.601 luma
        assert abs(found.astype(float) - (0.299 * 20 + 0.587 * 230 + 0.114 * 20)).max() <= 1
    with pytest.raises(InputError, match="4 channels"):
        picture(path, contract(shape=[None, 32, 32, 4]))


def bomb(path: Path) -> Path:
    """A PNG of a few bytes that claims to hold 30000x30000 pixels."""
    header = struct.pack(">IIBBBBB", 30000, 30000, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0")), (b"IEND", b"")]
    parts = [
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    ]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    return path


def with_bytes(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


BROKEN: dict[str, tuple[Callable[[Path], Path], str]] = {
    "truncated": (lambda folder: truncated(folder / "a.jpg"), "truncated"),
    "text": (lambda folder: with_bytes(folder / "a.jpg", b"a picture is worth a thousand words"), "not a picture"),
    "empty": (lambda folder: with_bytes(folder / "a.jpg", b""), "not a picture"),
    "missing": (lambda folder: folder / "a.jpg", "No such file"),
    "folder": (lambda folder: folder, "not a file"),
    "bomb": (lambda folder: bomb(folder / "a.png"), "too large"),
    "narrow": (lambda folder: paint(folder / "a.png", "red", (2, 9000)), "too narrow"),
    "floats": (lambda folder: saved(folder / "a.tif", np.ones((9, 9), np.float32)), "floating-point"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_what_cannot_be_read_is_named(kind: str, tmp_path: Path) -> None:
    make, word = BROKEN[kind]
    path = make(tmp_path)
    with pytest.raises(PictureError) as caught:
        picture(path, USUAL)
    assert str(path) in str(caught.value)
    assert word in caught.value.reason
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jpg")
    with pytest.raises(PictureError, match="not a file"):
        picture(tmp_path / "a.jpg", USUAL)


def test_network_input_follows_the_contract() -> None:
    pixels = noise(6, 4)[None]
    for pixel, value in ((0, -1.0), (255, 1.0), (51, -0.6)):
        taken = network_input(np.full((1, 6, 4, 3), pixel, np.uint8), contract())
        assert taken.dtype == np.float32
        np.testing.assert_allclose(taken, value, rtol=1e-6)
    as_it_is = {"mean": 0.0, "scale": 1.0}
    np.testing.assert_array_equal(network_input(pixels, contract(**as_it_is)), pixels.astype(np.float32))
    decoded = network_input(pixels, contract(type="uint8", **as_it_is))
    assert decoded.dtype == np.uint8
    np.testing.assert_array_equal(decoded, pixels)
    planes = network_input(pixels, contract(layout="nchw", **as_it_is))
    assert planes.flags.c_contiguous
    swapped = network_input(pixels, contract(colour_order="BGR", **as_it_is))
    for channel in range(3):
        np.testing.assert_array_equal(planes[0, channel], pixels[0, :, :, channel])
        np.testing.assert_array_equal(swapped[0, :, :, channel], pixels[0, :, :, 2 - channel])
    with pytest.raises(InputError, match="float16"):
        network_input(pixels, contract(type="float16"))


def test_which_files_are_pictures(tmp_path: Path) -> None:
    names = {"a.JPG": True, "a.jpeg": True, "a.webp": True, ".a.jpg": False, "a.txt": False, "jpg": False}
    assert {name: is_picture(tmp_path / name) for name in names} == names
