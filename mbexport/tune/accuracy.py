"""Each variant's accuracy, judged once and before any is timed, float32's own included."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mbexport.errors import ArtifactError, EngineError
from mbexport.tune.answers import answers_of
from mbexport.tune.exactness import Exactness

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from mbexport.tune.answers import Answers, Arrays
    from mbexport.tune.variants import Variant
    from mbexport.tune.yardstick import PictureYardstick, SqnrYardstick
    from mbexport.tuned import AccuracyCheck

    Tell = Callable[[str], None]

_FEWEST = 100
"""Pictures that are answered however little time there is."""


@dataclass(frozen=True)
class Judged:
    """A variant that an engine could run."""

    variant: Variant
    precision: str
    """Effective precision."""
    check: AccuracyCheck


@dataclass
class Accuracies:
    """What was found out about the variants."""

    judged: list[Judged] = field(default_factory=list)
    failed: dict[Variant, str] = field(default_factory=dict)
    """Why an engine could not run one, or that it gave wrong answers in float32."""
    notes: list[str] = field(default_factory=list)


def judge_all(
    variants: Sequence[Variant], stick: PictureYardstick | SqnrYardstick, threads: int, time_s: float, tell: Tell
) -> Accuracies:
    """Judge every variant that is not another's double.

    Production mode is left out where it is parity under another name: where the engine's defaults are float32, as ONNX
    Runtime's on a CPU are, or where not a bit of the answers differs, as in an int8 file without float32 islands.

    Args:
        variants: those in float32 first, see :func:`mbexport.tune.variants.variants_of`.
        stick: by what.
        threads: cores to keep busy.
        time_s: about how long all may take; fewer pictures are looked at where they would take longer.
        tell: called with what is being done.

    Raises:
        ArtifactError: the artifact's stored reference cannot be read, or proves nothing.
        EngineError: no engine can run the float32 model, or all give wrong answers.
        MissingError: an engine or device is not here.
    """
    found = Accuracies()
    exactness = Exactness.of(stick.artifact)
    exact, count = _exact(variants, stick, exactness, threads=threads, time_s=time_s, tell=tell, found=found)
    float_defaults: dict[str, str] = {}
    seen = _Seen()
    for variant in variants:
        if variant in found.failed or _is_double(variant, float_defaults):
            continue
        tell(f"accuracy of {variant.artifact.manifest.slug} {variant.target} {variant.mode}")
        try:
            precision = answers_of(variant, stick.probe(1), 1).facts.precision
            if variant.artifact.manifest.precision == "f32" and variant.mode == "production":
                float_defaults[variant.target] = precision
                if precision == "f32":
                    continue
            if variant.is_float32:
                exactness.require(variant, threads)
            answers = answers_of(variant, stick.probe(count), threads).outputs
            if seen.add(variant, answers):
                check = stick.check_float32 if variant.is_float32 else stick.check
                found.judged.append(Judged(variant, precision, check(exact.outputs, answers)))
        except (ArtifactError, EngineError) as error:
            found.failed[variant] = str(error)
    return found


class _Seen:
    """The answers of each file on each target so far, by their digest."""

    def __init__(self) -> None:
        self._digests: set[tuple[Path, str, str]] = set()

    def add(self, variant: Variant, answers: Arrays) -> bool:
        """Whether the other mode has not given exactly these."""
        digest = hashlib.sha256(b"".join(array.tobytes() for array in answers.values())).hexdigest()
        key = (variant.path, variant.target, digest)
        is_new = key not in self._digests
        self._digests.add(key)
        return is_new


def _is_double(variant: Variant, float_defaults: dict[str, str]) -> bool:
    return variant.mode == "production" and float_defaults.get(variant.target) == "f32"


def _exact(
    variants: Sequence[Variant],
    stick: PictureYardstick | SqnrYardstick,
    exactness: Exactness,
    *,
    threads: int,
    time_s: float,
    tell: Tell,
    found: Accuracies,
) -> tuple[Answers, int]:
    """Float32's answers, from the first runtime that gives right ones, and how many pictures the rest have time for."""
    reason = "nothing to run"
    for variant in variants:
        if not variant.is_float32:
            break
        tell(f"answers of {variant.artifact.manifest.slug} {variant.target} in float32")
        try:
            exactness.require(variant, threads)
            answers = answers_of(variant, stick.probe(), threads)
        except (ArtifactError, EngineError) as error:
            found.failed[variant] = reason = str(error)
            continue
        all_pictures = stick.probe().count
        others = len(variants) - 1
        each_s = answers.seconds / all_pictures
        count = max(_FEWEST, int((time_s - answers.seconds) / (each_s * max(others, 1))))
        if count < all_pictures:
            found.notes.append(f"judged by {count} of {all_pictures} pictures, for the time; --budget gives more")
        return answers, min(count, all_pictures)
    raise EngineError(f"no runtime runs the float32 model: {reason}")
