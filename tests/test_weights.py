"""Which source a ``--weights`` names."""

from __future__ import annotations

from pathlib import Path

import pytest

from mbexport.errors import SpecError, WeightsError
from mbexport.spec import ModelSpec
from mbexport.weights import absolute, check, split

SPEC = ModelSpec(variant="small", alpha=0.75)


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ("random", ("random", "")),
        ("imagenet", ("imagenet", "")),
        ("timm:a/b.pth", ("timm", "a/b.pth")),
        ("slim:ckpt/model.ckpt-1", ("slim", "ckpt/model.ckpt-1")),
        ("my.weights.h5", ("file", "my.weights.h5")),
        ("C:\\weights.h5", ("file", "C:\\weights.h5")),
        ("./timm:odd.h5", ("file", "./timm:odd.h5")),
    ],
)
def test_split(weights: str, expected: tuple[str, str]) -> None:
    assert split(weights) == expected


def test_absolute() -> None:
    assert absolute("random") == "random"
    assert absolute("timm:x.pth") == f"timm:{Path.cwd() / 'x.pth'}"
    assert absolute("x.h5") == str(Path.cwd() / "x.h5")


@pytest.mark.parametrize("weights", ["timm:x.pth", "slim:x", "imagenet", "x.h5"])
def test_a_pretrained_top_has_no_other_activation(weights: str) -> None:
    with pytest.raises(SpecError, match="softmax or none, not sigmoid"):
        check(weights, ModelSpec(variant="small", classifier_activation="sigmoid"))


@pytest.mark.parametrize("weights", ["timm:", "slim:", "timm:absent.pth", "slim:absent", "absent.h5", "", "imagenett"])
def test_what_is_not_there(weights: str) -> None:
    with pytest.raises(WeightsError):
        check(weights, SPEC)
