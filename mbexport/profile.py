"""What was measured and on what: nouns only. ``bench`` makes them and ``serde`` stores them."""

from __future__ import annotations

import re
from typing import Annotated, Literal

import msgspec

from mbexport.quantities import Count, Growth, Mode, Rate, Reading, Seconds, Share, Whole
from mbexport.samples import unpacked
from mbexport.spec import ModelSpec, Precision
from mbexport.tuned import TunedConfiguration

SCHEMA_VERSION = 2
PUBLISHED_SCHEMA_VERSION = 1

Verdict = Literal["ok", "noisy", "invalid"]
Scenario = Literal["single-stream", "concurrent", "offline"]
"""One call after the other; a fixed number of callers at once; as much at once as the engine serves best."""


class Hardware(msgspec.Struct, frozen=True, kw_only=True):
    """What a latency depends on, and nothing personal: no host name, user, serial number or address."""

    architecture: str
    cpu: str
    cpu_family: Whole | None = None
    cpu_model: Whole | None = None
    cpu_stepping: Whole | None = None
    physical_cores: Count
    logical_cores: Count
    memory_bytes: Whole
    instruction_sets: list[str] = []
    accelerators: list[str] = []
    virtual_machine: bool | None = None

    @property
    def slug(self) -> str:
        """A folder name, such as ``amd-epyc-f25m17-2c``."""
        generation = "" if self.cpu_family is None else f"-f{self.cpu_family}m{self.cpu_model}"
        words = [f"{self.cpu}{generation}-{self.physical_cores}c", *sorted(set(self.accelerators))]
        text = re.sub(r"\((?:r|tm)\)|\bcpu\b|@.*?ghz", " ", "-".join(words).lower())
        return re.sub(r"[^a-z0-9]+", "-", text).strip("-")


class ThreadPlan(msgspec.Struct, frozen=True, kw_only=True):
    """How many threads an engine may have here. Engines do not see cgroup limits, so threads are always explicit."""

    threads: Count
    """The default: one per physical core that this process may use, within its CPU quota."""
    most: Count
    """More than this many would wait for each other."""
    reasons: list[str]


class Conditions(msgspec.Struct, frozen=True, kw_only=True):
    """The state of the machine at one moment. Shares are fractions of 1; None where the system does not tell."""

    load_1min: Reading | None = None
    steal_share: Share | None = None
    """CPU time that the hypervisor gave to other machines since the read before."""
    others_share: Share | None = None
    """All cores' time that other processes used since the read before."""
    throttled_share: Share | None = None
    """Wall time since the read before in which the cgroup's CPU quota held this process back."""
    frequency_hz: Reading | None = None
    governor: str | None = None
    memory_available_bytes: Whole | None = None
    accelerator_clock_hz: Reading | None = None
    """The GPU's clock of its arithmetic units, for targets that run on one."""


class ColdStart(msgspec.Struct, frozen=True, kw_only=True):
    """What one fresh process took until its first answer, in seconds."""

    start_s: Seconds | None = None
    """From the process's start to the engine's import: Python, NumPy and mbexport. None in older profiles."""
    import_s: Seconds
    """Importing the engine's package."""
    load_s: Seconds
    """Reading, optimising and compiling the model."""
    first_inference_s: Seconds


class Replicate(ColdStart, frozen=True, kw_only=True):
    """One fresh process: cold start apart from the warm samples. Times in seconds."""

    samples: bytes
    """Each call's nanoseconds, as :mod:`mbexport.samples` packs them."""
    device_samples: bytes | None = None
    """The same without copying pictures in and answers out, of a device with memory of its own."""
    warmup_runs: Whole
    warmup_settled: bool
    throughput_per_s: Rate
    """Pictures per second of wall clock over the measured runs, never 1 / latency."""
    memory_loaded_bytes: Growth
    """Resident set size's growth over the bare engine after loading."""
    memory_inferred_bytes: Growth
    """The same after the first inference."""
    memory_peak_bytes: Whole
    """Peak resident set size of the whole process."""
    before: Conditions
    after: Conditions

    @property
    def samples_ns(self) -> list[int]:
        return unpacked(self.samples)


class Measurement(msgspec.Struct, frozen=True, kw_only=True):
    """One row: an artifact on a target with its settings. Statistics are derived from the samples."""

    runtime: str
    mode: Mode
    precision: str
    """Effective precision, read back from the engine: f32, tf32, bf16, f16 or int8."""
    threads: Count
    thread_plan: ThreadPlan
    batch: Count
    scenario: Scenario = "single-stream"
    concurrency: Count = 1
    """Calls under way at once; ``threads`` is what all of them share."""
    model: str | None = None
    """The artifact's model file, where it is another than its manifest names for the runtime."""
    asked_options: dict[str, str] = {}
    """The engine's own options that were asked for beyond the usual ones."""
    placement: dict[str, Whole]
    engine_options: dict[str, str]
    versions: dict[str, str]
    inputs_sha256: str
    input_size: tuple[Count, Count] | None = None
    """Height and width in pixels of what was fed to a network of dynamic size; None where the spec fixes them."""
    measured_on: str
    """ISO date, UTC."""
    replicates: Annotated[list[Replicate], msgspec.Meta(min_length=1)]
    prepared: list[ColdStart] = []
    """Fresh processes that found what the engine kept of this model at an earlier start: OpenVINO's model cache, or
    ONNX Runtime's graph as it had optimised it. Empty where that was not measured."""
    verdict: Verdict
    reasons: list[str]

    @property
    def key(self) -> tuple[str, str, int, int, str, int, str]:
        """Rows of one artifact with the same key replace each other.

        Offline the engine chooses how many calls run at once, and another version of it another number.
        """
        callers = 0 if self.scenario == "offline" else self.concurrency
        return self.runtime, self.mode, self.threads, self.batch, self.scenario, callers, self.unusual

    @property
    def unusual(self) -> str:
        """The model file and options that differ from the usual ones, in words; empty where none do."""
        model = [] if self.model is None else [self.model]
        return " ".join([*model, *(f"{name}={value}" for name, value in sorted(self.asked_options.items()))])

    @property
    def samples_ns(self) -> list[int]:
        """All replicates' raw samples, pooled."""
        return [sample for replicate in self.replicates for sample in replicate.samples_ns]


class LatencyProfile(msgspec.Struct, frozen=True, kw_only=True):
    """One artifact on one machine: ``profiles/<hardware-slug>/<artifact-slug>.json``."""

    schema_version: int = SCHEMA_VERSION
    artifact: str
    """The artifact's slug."""
    artifact_sha256: str
    spec: ModelSpec | None
    """None for a user's own network."""
    precision: Precision = "f32"
    """Of the artifact's files; what an engine computed in, each measurement says."""
    hardware: Hardware
    measurements: list[Measurement]
    tuned: list[TunedConfiguration] = []
    """What ``tune`` found for the artifact here, one for each objective and accuracy limit."""


class PublishedLatency(msgspec.Struct, frozen=True, kw_only=True):
    """One figure out of a document, for one picture."""

    artifact: str
    """The network's published name, which is also an artifact's slug."""
    latency_s: Annotated[float, msgspec.Meta(gt=0, le=86_400)]
    source: str


class PublishedProfile(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody else's latencies: ``profiles/published/<device>.json``.

    Not a :class:`LatencyProfile`: there are no samples, no conditions and no digest of what ran, so no interval, no
    verdict, and nothing to compare with what is measured here.
    """

    schema_version: int = PUBLISHED_SCHEMA_VERSION
    kind: Literal["published, not measured"]
    device: str
    """The machine, the engine and its settings, as far as the sources tell."""
    rows: list[PublishedLatency]
