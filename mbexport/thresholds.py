"""Every tolerance and limit, each with its unit and where it comes from."""

from __future__ import annotations

from typing import Literal

Precision = Literal["tf32", "bf16", "f16", "int8"]
"""What is narrower than float32 and what engines compute in."""

F32_MARGIN_DB = 12.0
"""How far under the artifact's own float32 noise floor (Keras float32 against float64) a float32 runtime may stand.

Another order of summation moves the noise of a float32 network: over the grid of benchmarks/grid.py and three seeds a
runtime stands within 1 dB of the floor in the median, 7.3 dB under it at worst, with a standard deviation of 3 dB in
the network that is worst. Of the faults of benchmarks/mutations.py the weakest stands 17 dB under the floor.
"""

F32_MOST_MARGIN_DB = 40.0
"""The most that chance may add to that, where an output holds a few numbers (:mod:`mbexport.accuracy.chance`).

It adds nothing to as many pictures as references have (:func:`mbexport.pictures.reference_count`); of 4 pictures of 2
classes, as older artifacts hold them, it makes 24 dB.
"""

IMAGES_MARGIN_DB = 30.0
"""The same for the user's own pictures, under the lower of two floors: the stored one and this graph's in NumPy.

NumPy sums more exactly than engines do, and what rounding does to an even sky does not average out: of 220 single
photographs on three right networks the worst runtime stood 22.8 dB under NumPy's floor."""

F32_ROUNDING_DB = 144.5
"""A noise floor is never taken as lower than this: rounding exact answers to float32 may cost 20 log10(2^24) dB."""

F32_LEAST_FLOOR_DB = 60.0
"""Below this noise floor an artifact's reference proves nothing.

At 60 dB the limit is 48 dB: noise of a 250th of the signal would pass, more than many a wrong graph makes. The
networks of benchmarks/grid.py stand above 95 dB.
"""

PRECISION_MARGINS_DB: dict[Precision, float] = {"tf32": 27.0, "bf16": 2.0, "f16": 10.0, "int8": 10.0}
"""How far under a precision's own noise, measured by rounding the graph's numbers to it, a runtime may stand, besides
what chance may add (:mod:`mbexport.accuracy.chance`).

Measured by benchmarks/precision_limits.py over 39 networks. bf16: OpenVINO on a CPU stood 0.3 dB under it at worst;
2 dB leave room for engines that fuse less and so round more often. f16: ONNX Runtime with an f16 file stood over it,
and a double whose sums are f16 too, in the worst order, 9.7 dB under it. int8: ONNX Runtime's static quantisation,
8.4 dB. TF32 was measured on no GPU: a double that cuts numbers instead of rounding them, the worst that tensor cores
could do, stood 28.6 dB under it, chance included.
"""

FILE_MARGIN_DB = 3.0
"""How far under an int8 or f16 file's own noise, computed node by node, an engine may stand, besides chance.

The file states its rounding; engines differ in ties and in what they fuse. V3 Small and V2 with real weights stood
within 0.5 dB of it on both CPU runtimes.
"""

NOISE_FREEDOMS = 60
"""How many independent numbers the noise of one picture's answer is worth, however many classes there are.

Over 1000 classes the noise of one picture in two realisations of bf16 differs with a standard deviation of 0.96 dB, as
sums of 82 squares do; with 60, what benchmarks/precision_limits.py draws of 10 to 1000 classes and 4 pictures stays
within what :mod:`mbexport.accuracy.chance` allows.
"""

CHANCE_DEVIATIONS = 3.72
"""Standard deviations of the normal distribution that chance exceeds once in 10,000 rows."""

TELLING_DB = 6.0
"""A limit under this lets noise of half the signal pass: a row that passes then proves little."""

TENSOR_MARGIN_DB, TENSOR_MOST_FLOOR_DB = 15.0, 130.0
"""How far an engine's inner tensor may stand under its own noise before ``--explain`` calls it wrong, and the most that
the noise floor of one is taken for: many are exact in one engine and rounded in the next."""

RAW_GRAPH_DB = 80.0
"""The least SQNR of TensorFlow's float32 against the raw ONNX graph evaluated in float64, which is to be its truth.

A right graph gives TensorFlow's own noise floor, above 95 dB over the networks of benchmarks/grid.py."""

GOLDEN_LEAST_DB = 60.0
"""What a golden picture's answers must reach. They are there to show pictures that go in wrongly, which leaves 20 dB at
most; rounding is the references' affair, and of a single picture with a few classes it is a matter of luck."""

PROBABILITY_SUM_TOLERANCE = 1e-4
"""How far from 1 a row of probabilities may sum. A float32 sum of 1000 classes errs by 1000 x 2^-24 = 6e-5 at most."""

PERCENTILE_CONFIDENCE = 0.99
"""Confidence that the sample holds what a percentile speaks of (MLPerf loadgen's rule); see ``bench.statistics``."""

BENCH_MIN_SAMPLES = 690
"""Samples per row over all replicates: p99 needs 662."""
BENCH_REPLICATES = 5
"""Fresh processes per row, interleaved with the other rows'. Processes differ more than the samples of one do, so five
short ones say more than three long ones."""
BENCH_LEAST_REPLICATES = 3
"""With fewer there is no telling how far processes differ."""
BENCH_MIN_TIME_S = 0.6
"""Least measuring time per process, so that short stalls of the machine do not make up a whole sample."""
BENCH_MAX_TIME_S = 30.0
"""Most measuring time per process; a row that got fewer samples than it needs says so."""
WARMUP_MIN_RUNS = 10
WARMUP_WINDOW_RUNS = 10
WARMUP_SETTLED_SHARE = 0.03
"""Warm-up ends when two successive window medians differ by at most this share."""
WARMUP_MAX_TIME_S = 5.0
"""After this no further call is begun where warm-up has not settled; ``WARMUP_MIN_RUNS`` are always made."""

NOISY_BETWEEN_SHARE = 0.05
"""Spread of the replicates' medians over the pooled median, above which a row is called noisy."""
NOISY_STEAL_SHARE = 0.02
"""Share of CPU time that the hypervisor took while measuring, above which a row is called noisy."""
NOISY_OTHERS_SHARE = 0.1
"""Share of all cores' time that other processes used while measuring, above which a row is called noisy.

A provisional limit. In one round with V3 Small on two cores, a neighbour that took 6% of the machine cost a two-thread
row 3%, within the spread between processes, and one that took a whole core cost it 90%.
"""

NOISY_THROTTLED_SHARE = 0.01
"""Share of the wall time in which a CPU quota held the process back, above which a row is called noisy."""
NOISY_FREQUENCY_SHARE = 0.1
"""Change of the CPU's frequency while measuring, above which a row is called noisy."""
NOISY_DRIFT_SHARE = 0.1
"""Step or slope of the latency within a process, above which a row is called noisy; see ``bench.drift``."""

DIFF_ABOVE_SHARE = 0.05
"""Change of the p50 that ``profile diff`` calls faster or slower where it is given no other.

With five processes a row that differ by 1% (standard deviation), slowdowns of 10% are all caught in 300 draws and
equals raise no alarm; where one process in ten is hit, 94 of 100 are caught; drawn from the shipped one-thread rows,
of which most are noisy, 41, with 0.3 alarms in 100 (benchmarks/diff_power.py).
"""
DIFF_RUN_TO_RUN_SHARE = 0.0075
"""How far two runs of the same thing, one after the other, differ as a whole, which their own processes cannot show.

Each side of a ``profile diff`` interval is wider by it, and the threshold lies further out, where the processes of both
agree to ``NOISY_BETWEEN_SHARE``. Where runs differ by 1.5%
(standard deviation) it brings 3.4 false alarms in 100 down to 1.3 and costs 2 of 100 slowdowns of 10%; with more than
0.75% fewer than 95 would be caught there."""
DIFF_MOST_RUN_TO_RUN_SHARE = 0.25
"""The most that two runs are taken to differ as a whole, where processes differ by more than ``NOISY_BETWEEN_SHARE``.

Of 58 pairs of runs of the same thing on a shared virtual machine, each half a minute after the other, 6 would have been
called faster or slower with 0.75%; they stood up to 20% apart. With what the processes of the less steady side differ,
all but the slowest and up to this, it was one. What that costs is told in docs/benchmarking.md.
"""
DIFF_MIN_PROCESSES = 3
"""With fewer processes on a side nothing is known of how far they differ."""

ONNX_MAX_BYTES = 2**31 - 1
"""A protobuf message holds less than 2 GiB; larger networks would need external data."""

DOWNLOAD_ANSWER_S = 6.0
"""Longest wait for a download's server, name lookup and every address of it included: without a network a command ends
within 10 s, of which starting Python and mbexport take the rest."""
DOWNLOAD_STALL_S = 30.0
"""Longest silence in the middle of a download."""

ARCHIVE_MAX_RATIO = 20.0
"""What a member of a zip archive may grow to, over the archive's size. Keras stores its weights uncompressed; trained
float32 compresses to nine tenths, and weights of which nine in ten are zero to a tenth."""

PICTURE_MAX_PIXELS = 2**27
"""Pictures with more pixels, decoded or resized, are refused: 400 MB of memory for each core. Cameras stay below it."""
