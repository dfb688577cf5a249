"""What stays in float32, by what that does to the answers of the engine itself.

The first layers are where rounding costs most: they work on few channels with wide ranges, and all that follows is
built on them (benchmarks/precision.py measures every layer's share). They are also where 8 bits gain least time: on
ONNX Runtime the first convolution, which reads three channels, takes 3.5 times as long in 8 bits, and six networks of
six were fastest with three products in float32. So few choices are tried, the fastest first, and the engine's own
answers decide.

On ONNX Runtime a depthwise product reads one scale for all channels, and a hard-swish rounds what it reads and what it
gives. In V3 Small that is much of the noise: the narrow blocks, where float32 is nearly as fast, and the last one are
worth 2.5 dB for 12% of the time. V3 Large has one narrow block, gains little by it, and does without. On OpenVINO
two blocks at the start in float32 are worth 2 to 3 dB for 1 to 3% of the time, the first convolution excepted, and
where the CPU has bf16 all blocks of V3 Small together are faster so. With AMX these two alone cost V3 Small 18%, and
all of its blocks together 4%.

The order of speed is measured once for each kind of CPU, not on every run: choices lie within a few percent of each
other, a shared machine's times do not, and the same pictures are to give the same bytes on CPUs of a kind.
"""

from __future__ import annotations

import itertools
import math
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mbexport.quantize.change import change
from mbexport.quantize.emit import quantized
from mbexport.quantize.engine_runs import answers
from mbexport.quantize.equalise import equalised
from mbexport.quantize.placement import Islands, left_by, place
from mbexport.quantize.recipe import Recipe
from mbexport.quantize.walk import settle

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from mbexport.manifest import InputContract, OutputContract
    from mbexport.quantize.network import Network, Product
    from mbexport.quantize.placement import Engine

_CHOICES: dict[Engine, tuple[Islands, ...]] = {
    "ort": (Islands(3), Islands(5), Islands(3, expanding=True, deep=1)),
    "openvino": (Islands(7, pixels=True), Islands()),
}
"""By what is fastest. Products from the input on: the first convolution, the depthwise one, the 1x1 one behind it (a
projection, or of a squeeze-excite), the first block with one or a stride. The seventh is the depthwise one of V3
Small's second block, and the expansion of V3 Large's third. A file that serves both engines has the form of the first.
On OpenVINO both take the same time within 3%, without AMX."""
_DEEP = Islands(7, pixels=True, expanding=True, deep=3)
_IN_BF16 = (Islands(7, pixels=True, expanding=True), _DEEP)
"""Besides on OpenVINO where the CPU has bf16 without AMX, and they are no slower. In float32 they would take 13% longer
in V3 Small."""
_WITH_AMX = (_DEEP, Islands())
"""On OpenVINO with AMX, where products 2 to 7 alone make V3 Small 13 to 18% slower than these and V3 Large no faster.
Of these the first takes 2% less time than the second in V3 Large, 3 to 4% more in V3 Small."""
_QUICK = Recipe(equalising=False, refitting=False, making_up=False)
"""What fits weights takes most of the time, and activations are what islands are for, with biases that make up for the
most of what bf16 rounds; equalised once for all."""
_WORTH_DB = 0.2
"""What is slower must be better by so much, before weights are fitted; behind it differences are larger (V3 Large 0.75
on ONNX Runtime: 0.3 and then 1.1 dB on photographs). A margin of 0.5 left that network to chance: 1.5 dB worse on other
pictures."""
_SIXFOLD_WORTH_DB = 1.0
"""The same where one more of the first products widens sixfold, as in every V2. ONNX Runtime takes twice as long for
that one in float32 as in 8 bits, and 8 to 17% longer for the network; for V3's, at most fivefold, 5% at most. V2 with
real weights gains -0.7 to 0.3 dB, so that the margin above left 12% of its time to chance; random ones gain 1.4 to 2.
"""


@dataclass(frozen=True)
class Cpu:
    """How a CPU multiplies."""

    levels: int
    """The largest 8-bit weight that it multiplies right."""
    bf16: bool
    """Whether OpenVINO computes in bf16 on it."""
    amx: bool = False
    """Whether it does so in AMX."""


@dataclass(frozen=True)
class Trial:
    """What choices are tried on."""

    contract: InputContract
    output: OutputContract
    calibrating: Sequence[NDArray[np.float32]]
    """A few batches as the network takes them."""
    judging: Sequence[NDArray[np.float32]]
    """Other ones."""
    exact: NDArray[np.float32]
    """The float network's answers to those, and perhaps to more pictures behind them."""
    cpu: Cpu

    def noise_db(self, model: Path, target: str) -> float:
        """SQNR of a model's answers on a target, at the engine's defaults."""
        found = answers(model, target, "production", self.contract, self.judging, self.output.name)
        seen = change(self.output, self.exact[: len(found)], found, None)
        if not seen.finite:
            return -math.inf
        return math.inf if seen.sqnr_db is None else seen.sqnr_db


def choose_islands(network: Network, engine: Engine, targets: Sequence[str], trial: Trial) -> Islands:
    """The fastest, unless a slower one is better by its margin; of several targets, on the worst.

    Args:
        network: in float32.
        engine: whose form of the file it is.
        targets: where the file will run.
        trial: what it is tried on.
    """
    network = equalised(network, trial.calibrating)
    with tempfile.TemporaryDirectory(prefix="mbexport-") as folder:

        def noise_db(islands: Islands) -> float:
            settled = settle(
                network, place(network, engine, islands), trial.calibrating, levels=trial.cpu.levels, recipe=_QUICK
            )
            model = Path(folder) / "model.onnx"
            model.write_bytes(quantized(settled).SerializeToString())
            return min(trial.noise_db(model, target) for target in targets)

        return first_worth_it(network, {each: noise_db(each) for each in choices(network, engine, trial.cpu)})


def first_worth_it(network: Network, found_db: Mapping[Islands, float]) -> Islands:
    """The first that none behind it betters by its margin; those behind are slower."""
    found = list(found_db.items())
    return next(
        islands
        for at, (islands, noise_db) in enumerate(found)
        if all(slower_db <= noise_db + _worth_db(network, islands, slower) for slower, slower_db in found[at + 1 :])
    )


def _worth_db(network: Network, islands: Islands, slower: Islands) -> float:
    """By how much the slower one must be better."""
    more = itertools.islice(network.products.values(), islands.first, slower.first)
    return _SIXFOLD_WORTH_DB if any(map(_widens_sixfold, more)) else _WORTH_DB


def _widens_sixfold(product: Product) -> bool:
    outputs, inputs, *size = product.kernel.shape
    return product.groups == 1 and size == [1, 1] and outputs >= 6 * inputs


def choices(network: Network, engine: Engine, cpu: Cpu) -> list[Islands]:
    """Those that differ and leave something to 8 bits, by what is fastest on the CPU."""
    found: dict[frozenset[str], Islands] = {}
    for islands in _by_speed(engine, cpu):
        left = frozenset(left_by(network, islands))
        if len(left) < len(network.products):
            found.setdefault(left, islands)
    return list(found.values()) or [Islands()]


def _by_speed(engine: Engine, cpu: Cpu) -> tuple[Islands, ...]:
    if engine == "ort" or not cpu.bf16:
        return _CHOICES[engine]
    return _WITH_AMX if cpu.amx else (*_CHOICES[engine], *_IN_BF16)
