"""Whether answers in a narrower precision stay inside the accuracy limit, by the rules of ``quantize``."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from mbexport.compare import sqnr_db
from mbexport.outputs import comparable
from mbexport.quantize.change import change
from mbexport.quantize.judging import BF16_MARGIN_DB
from mbexport.quantize.verdict import judged
from mbexport.tuned import AccuracyCheck

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from mbexport.manifest import OutputContract

    Arrays = Mapping[str, NDArray[Any]]


def check_pictures(
    output: OutputContract,
    exact: NDArray[np.float32],
    narrow: NDArray[np.float32],
    labels: NDArray[np.int64] | None,
    max_drop: float,
) -> AccuracyCheck:
    """Judge by the classes of pictures: float32's answers (``exact``) and the narrower ones', (pictures, classes)."""
    seen = change(output, exact, narrow, labels)
    rule, fault = judged(seen, max_drop, None)
    return AccuracyCheck(
        rule=rule,
        inside=fault is None,
        fault=fault,
        pictures=seen.pictures,
        top1_drop=seen.top1_drop,
        top1_drop_ci=seen.top1_drop_ci,
        expected_drop=seen.expected_drop,
        agreement=seen.agreement,
        agreement_ci=seen.agreement_ci,
        sqnr_db=seen.sqnr_db,
    )


def check_sqnr(
    outputs: Sequence[OutputContract], truth: Arrays, answers: Arrays, floors_db: Mapping[str, float]
) -> AccuracyCheck:
    """Judge by SQNR against ``truth``; ``floors_db`` is bf16's own on the same inputs. The worst output counts."""
    found = [
        (sqnr_db(*comparable(each, truth[each.name], answers[each.name])), floors_db[each.name] - BF16_MARGIN_DB)
        for each in outputs
    ]
    value_db, least_db = min(found, key=lambda pair: pair[0] - pair[1] if math.isfinite(pair[0]) else pair[0])
    inside = all(one_db >= limit_db for one_db, limit_db in found)
    return AccuracyCheck(
        rule="sqnr",
        inside=inside,
        fault=None if inside else f"stands {value_db:.1f} dB from float32, at least {least_db:.1f} dB are asked for",
        pictures=len(next(iter(truth.values()))),
        sqnr_db=value_db if math.isfinite(value_db) else None,
        least_sqnr_db=least_db if math.isfinite(least_db) else None,
    )
