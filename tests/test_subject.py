"""What references are computed from, and how many pictures it takes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from mbexport.contract import InputRule
from mbexport.manifest import WeightsOrigin
from mbexport.pictures import reference_pictures
from mbexport.subject import About, Subject, reference_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mbexport.manifest import OutputKind

SIZE = (8, 16)
RULE = InputRule(127.5, 127.5)


@dataclass
class Sums:
    """A network that answers with the first so many sums over columns of a picture, for each of its outputs."""

    widths: dict[str, int]
    picture_shape: tuple[int, int, int] = (*SIZE, 3)
    batches: list[int] = field(default_factory=list)

    @property
    def output_names(self) -> list[str]:
        return list(self.widths)

    def float32(self, pictures: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        self.batches.append(len(pictures))
        return [pictures.sum((1, 3))[:, :width] for width in self.widths.values()]

    def float64(self, pictures: NDArray[np.float32]) -> list[NDArray[np.float64]]:
        return [answer.astype(np.float64) for answer in self.float32(pictures)]

    def to_onnx(self, opset: int) -> Any:
        raise NotImplementedError


@pytest.mark.parametrize(
    ("widths", "kind", "count"),
    [
        ({"y": 5}, "probabilities", 4),
        ({"y": 3}, "probabilities", 6),
        ({"y": 2}, "logits", 12),
        ({"y": 2}, "features", 6),
        ({"y": 1}, "features", 12),
        ({"many": 9, "few": 2}, "probabilities", 12),
    ],
)
def test_few_numbers_take_more_pictures(widths: dict[str, int], kind: OutputKind, count: int) -> None:
    network = Sums(widths)
    subject = Subject(About("sums", WeightsOrigin(kind="random"), (SIZE,)), network)
    found = reference_of(subject, RULE, dict.fromkeys(widths, kind))
    shown = RULE.apply(reference_pictures(*SIZE, count))
    assert np.array_equal(found.inputs["input"], shown)
    assert max(network.batches) == 4  # memory is reckoned for so many
    for (name, width), wanted in zip(widths.items(), network.float32(shown), strict=True):
        assert found.keras_float32[name].shape == (count, width)
        assert np.array_equal(found.keras_float32[name], wanted)
        assert np.array_equal(found.keras_float64[name], wanted)
