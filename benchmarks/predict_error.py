"""How far `mbexport profile predict` may be trusted: every measured network predicted by a fit of all the others.

Run: python benchmarks/predict_error.py [--hardware SLUG] [-v] [PROFILES...]    (default: the shipped profiles)

For each runtime, mode, precision and thread count: the errors, and the share of networks that the 90% interval held,
fit and interval being of the other networks alone. Held to the bars over all of them: the median error is at most 8%,
the intervals hold in 85 to 95%. Exits 1 where a bar is missed, 2 where there is nothing to predict from.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mbexport import hardware
from mbexport.analysis.features import block_channels
from mbexport.analysis.machine import choose_machine
from mbexport.analysis.predict import LEAST_NETWORKS, Group, groups, leave_one_out
from mbexport.errors import InputError
from mbexport.profiles import list_profiles, shipped_profiles_dir

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mbexport.analysis.predict import Left

MOST_MEDIAN_ERROR = 0.08
LEAST_COVERAGE, MOST_COVERAGE = 0.85, 0.95


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("profiles", nargs="*", type=Path)
    parser.add_argument("--hardware", metavar="SLUG")
    parser.add_argument("-v", "--verbose", action="store_true", help="each network too")
    arguments = parser.parse_args()
    folders = arguments.profiles or [shipped_profiles_dir()]
    try:
        machine = choose_machine(list_profiles(folders), arguments.hardware, hardware.detect())
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    block = block_channels(machine.hardware.instruction_sets)
    print(f"{machine.hardware.slug}, blocks of {block} channels")
    everything: list[Left] = []
    for group in groups(cell for cell in machine.cells if cell.measurement.batch == 1):
        if len(group.cells) < LEAST_NETWORKS:
            print(f"{_name(group)}: {len(group.cells)} networks are too few")
            continue
        left = leave_one_out(group, block)
        print(f"{_name(group)}: {_summary(left)}")
        if arguments.verbose:
            _print_networks(left)
        everything += left
    return _judge(everything)


def _judge(left: Sequence[Left]) -> int:
    if not left:
        print("error: nothing to predict from", file=sys.stderr)
        return 2
    print(f"all: {_summary(left)}")
    error, coverage = _median_error(left), _coverage(left)
    passed = error <= MOST_MEDIAN_ERROR and LEAST_COVERAGE <= coverage <= MOST_COVERAGE
    bars = f"median error <= {MOST_MEDIAN_ERROR:.0%}, held {LEAST_COVERAGE:.0%} to {MOST_COVERAGE:.0%}"
    print(f"{bars}: {'met' if passed else 'MISSED'}")
    return 0 if passed else 1


def _name(group: Group) -> str:
    return f"{group.runtime} {group.mode} {group.precision} threads {group.threads}"


def _summary(left: Sequence[Left]) -> str:
    worst = max(left, key=lambda one: one.error)
    spans = statistics.median(one.high_s / one.low_s for one in left)
    return (
        f"{len(left)} left out, median error {_median_error(left):.1%}, worst {worst.error:.1%} ({worst.network}), "
        f"90% intervals held {_coverage(left):.1%}, +-{spans**0.5 - 1:.0%} wide"
    )


def _print_networks(left: Sequence[Left]) -> None:
    for one in sorted(left, key=lambda one: one.measured_s):
        figures = (one.measured_s, one.predicted_s, one.low_s, one.high_s)
        measured, predicted, low, high = (f"{figure * 1e3:7.3f}" for figure in figures)
        held = "" if one.held else "  not held"
        print(f"  {one.network:<42} measured {measured}, predicted {predicted} ({low} to {high}) ms{held}")


def _median_error(left: Sequence[Left]) -> float:
    return statistics.median(one.error for one in left)


def _coverage(left: Sequence[Left]) -> float:
    return sum(one.held for one in left) / len(left)


if __name__ == "__main__":
    sys.exit(main())
