"""How busy ``evaluate`` keeps the cores: its rate beside cores / (decoding + inference) of one picture.

Run: python benchmarks/evaluate_rate.py ARTIFACT IMAGES [--runtime TARGET ...] [--rounds N] [--limit N]

IMAGES is a folder or CSV as ``mbexport evaluate`` takes it. Each round measures, on the same pictures and in one
process: decoding alone, inference alone (one thread, the runtimes added up), and the evaluation. The aim is that the
median share is at least 0.80. A neighbour takes a core from the two workers, but not from the one thread that decodes
alone, so rounds in which other processes used more than a tenth of the machine do not count.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from mbexport.artifact import read_artifact
from mbexport.bench.conditions import read_conditions, read_cpu_times
from mbexport.classifier import ClassNames, classifier_outputs, open_classifier
from mbexport.evaluate import evaluate
from mbexport.folders import labelled_set, take_evenly
from mbexport.hardware import usable_threads
from mbexport.images import picture
from mbexport.runtimes import resolve_targets
from mbexport.thresholds import NOISY_OTHERS_SHARE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mbexport.artifact import Artifact

AIM = 0.80
PATIENCE_S = 60.0
"""How long a round waits for other processes to leave the cores alone."""


def main() -> None:
    """Print each round; exit 1 where the aim is missed, 2 where too few rounds were quiet to tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artifact", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("--runtime", action="append")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--attempts", type=int, default=20)
    parser.add_argument("--limit", type=int)
    given = parser.parse_args()
    artifact, targets, threads = read_artifact(given.artifact), resolve_targets(given.runtime), usable_threads().threads
    print(f"{artifact.manifest.slug} on {', '.join(targets)}, {threads} threads")
    print("decode ms  inference ms  ideal/s  evaluate/s  share  others")
    shares: list[float] = []
    for _ in range(given.attempts):
        wait_for_quiet()
        before = read_cpu_times()
        decode_s, inference_s = alone(artifact, given.images, targets, given.limit)
        ideal_per_s = threads / (decode_s + inference_s)
        report = evaluate(artifact, given.images, targets, threads=threads, limit=given.limit)
        others_share = read_conditions(before, read_cpu_times()).others_share or 0.0
        share = report.images_per_s / ideal_per_s
        figures = f"{decode_s * 1e3:>9.2f} {inference_s * 1e3:>13.2f} {ideal_per_s:>8.1f} {report.images_per_s:>11.1f}"
        print(f"{figures} {share:>6.2f} {others_share:>7.0%}", flush=True)
        if others_share <= NOISY_OTHERS_SHARE:
            shares.append(share)
        if len(shares) == given.rounds:
            break
    if len(shares) < given.rounds:
        print(f"only {len(shares)} of {given.attempts} rounds were quiet; {given.rounds} are needed")
        sys.exit(2)
    median = statistics.median(shares)
    print(f"median share {median:.2f}; the aim is {AIM:.2f}: {'kept' if median >= AIM else 'MISSED'}")
    sys.exit(0 if median >= AIM else 1)


def wait_for_quiet() -> None:
    """Until a second has passed in which other processes left the cores alone, at most :data:`PATIENCE_S`."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        before = read_cpu_times()
        time.sleep(1)
        if (read_conditions(before, read_cpu_times()).others_share or 0.0) <= NOISY_OTHERS_SHARE / 2:
            return


def alone(artifact: Artifact, images: Path, targets: Sequence[str], limit: int | None) -> tuple[float, float]:
    """Seconds per picture of decoding, and of inference on all targets, one after the other on one thread."""
    output, *_ = classifier_outputs(artifact)
    names = ClassNames(artifact, output)
    paths = [each.path for each in take_evenly(labelled_set(images, names.count, names.labels).pictures, limit)]
    start = time.perf_counter()
    for path in paths:
        picture(path, artifact.manifest.input)
    decode_s = (time.perf_counter() - start) / len(paths)
    shown = picture(paths[0], artifact.manifest.input)[None]
    inference_s = 0.0
    for target in targets:
        with open_classifier(artifact, target, output, 1) as classifier:
            classifier.scores(shown)
            start = time.perf_counter()
            for _ in paths:
                classifier.scores(shown)
            inference_s += (time.perf_counter() - start) / len(paths) / classifier.batch
    return decode_s, inference_s


if __name__ == "__main__":
    main()
