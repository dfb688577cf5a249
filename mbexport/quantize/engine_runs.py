"""Answers of model files on the engines themselves, at the options that their users have: the defaults."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mbexport.images import picture_size
from mbexport.runtimes import SessionOptions, load_engine, split_target

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from mbexport.manifest import InputContract
    from mbexport.quantities import Mode


def answers(
    model: Path, target: str, mode: Mode, contract: InputContract, batches: Sequence[NDArray[np.float32]], output: str
) -> NDArray[np.float32]:
    """One output for all pictures, (pictures, ...). ``batches`` are of one size, but for the last.

    Raises:
        EngineError: the engine cannot run the model.
        MissingError: the engine or device is not here.
    """
    engine, device = split_target(target)
    size = len(batches[0])
    options = SessionOptions(mode=mode, batch=size, size=picture_size(contract))
    found = []
    with load_engine(engine).open(model, device, options) as session:
        for batch in batches:
            filled = np.concatenate([batch, np.repeat(batch[-1:], size - len(batch), axis=0)])
            found.append(session.run({contract.name: filled})[output][: len(batch)])
    return np.concatenate(found)
