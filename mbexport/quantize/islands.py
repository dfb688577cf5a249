"""What stays in float32, by what that does to the answers of the engine itself.

The first layers are where rounding costs most: they work on few channels with wide ranges, and all that follows is
built on them (benchmarks/precision.py measures every layer's share). They are also where 8 bits gain least time: on
ONNX Runtime the first convolution, which reads three channels, takes 3.5 times as long in 8 bits, and six networks of
six were fastest with three products in float32. On the other hand an engine that computes what is left in float32 in
bf16 makes an island a worse place than 8 bits. So few choices are tried, the fastest first, and the engine's own
answers decide.

On ONNX Runtime a depthwise product reads one scale for all channels, and a hard-swish rounds what it reads and what it
gives. In V3 Small that is much of the noise: the narrow blocks, where float32 is nearly as fast, and the last one are
worth 2.5 dB for 12% of the time. V3 Large has one narrow block, gains little by its last, and does without. On OpenVINO
the last three blocks of V3 Small are about as fast in bf16 and 0.4 dB nearer to float32; on a CPU without bf16 they
would cost time.
"""

from __future__ import annotations

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
from mbexport.quantize.walk import Recipe, settle

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from mbexport.manifest import InputContract, OutputContract
    from mbexport.quantize.network import Network
    from mbexport.quantize.placement import Engine

_CHOICES: dict[Engine, tuple[Islands, ...]] = {
    "ort": (Islands(3), Islands(5), Islands(1), Islands(3, expanding=True, deep=1)),
    "openvino": (Islands(), Islands(2), Islands(5), Islands(deep=3)),
}
"""By what is fastest. Products from the input on: the first convolution, the depthwise one, the 1x1 one behind it (a
projection, or of a squeeze-excite), the first block with one or a stride. A file that serves both engines has the form
of the first: V2 leaves but the first convolution, for OpenVINO's bf16 is worse than 8 bits for the depthwise one."""
_QUICK = Recipe(equalising=False, refitting=False, making_up=False)
"""What fits weights takes most of the time, and activations are what islands are for; equalised once for all."""
WORTH_DB = 0.2
"""What is slower must be better by so much, before weights are fitted; behind it differences are larger (V3 Large 0.75
on ONNX Runtime: 0.3 and then 1.1 dB on photographs). A margin of 0.5 left that network, and V3 Large on OpenVINO, to
chance: 1.5 and 4 dB worse on other pictures."""


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
    levels: int
    """The largest 8-bit weight."""

    def noise_db(self, model: Path, target: str) -> float:
        """SQNR of a model's answers on a target, at the engine's defaults."""
        found = answers(model, target, "production", self.contract, self.judging, self.output.name)
        seen = change(self.output, self.exact[: len(found)], found, None)
        if not seen.finite:
            return -math.inf
        return math.inf if seen.sqnr_db is None else seen.sqnr_db


def choose_islands(network: Network, engine: Engine, targets: Sequence[str], trial: Trial) -> Islands:
    """The fastest that is within :data:`WORTH_DB` of the best, of several targets on the worst.

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
                network, place(network, engine, islands), trial.calibrating, levels=trial.levels, recipe=_QUICK
            )
            model = Path(folder) / "model.onnx"
            model.write_bytes(quantized(settled).SerializeToString())
            return min(trial.noise_db(model, target) for target in targets)

        return _first({islands: noise_db(islands) for islands in choices(network, engine)}, WORTH_DB)


def choices(network: Network, engine: Engine) -> list[Islands]:
    """Those that differ and leave something to 8 bits, the fastest first."""
    found: dict[frozenset[str], Islands] = {}
    for islands in _CHOICES[engine]:
        left = frozenset(left_by(network, islands))
        if len(left) < len(network.products):
            found.setdefault(left, islands)
    return list(found.values()) or [Islands()]


def _first(found_db: dict[Islands, float], worth_db: float) -> Islands:
    """The first that is within ``worth_db`` of the best."""
    enough_db = max(found_db.values()) - worth_db
    return next(islands for islands, noise_db in found_db.items() if noise_db >= enough_db)
