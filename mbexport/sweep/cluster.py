"""A sweep on a Dask cluster. Workers' resources say which cells they can take."""

from __future__ import annotations

import logging
import re
import time
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from mbexport import serde
from mbexport.artifact import MANIFEST, read_artifact, refuse_foreign
from mbexport.cached import source_digest
from mbexport.errors import EngineError, InputError, MbexportError, MissingError, MissingPackageError
from mbexport.profile import LatencyProfile
from mbexport.profiles import locked, profile_path, write_profile
from mbexport.runtimes import split_target
from mbexport.sweep import errand
from mbexport.sweep.errand import Measuring
from mbexport.sweep.pool import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from mbexport.artifact import Artifact
    from mbexport.bench.rows import BenchRow
    from mbexport.bench.settings import Settings as BenchSettings
    from mbexport.sweep.orders import Order
    from mbexport.sweep.run import Settings

BENCH = "bench"
"""A worker that may measure; one a machine has it, once."""
_CONNECT_S = 10.0
_POLL_S = 0.5
_LAST_PORT = 65535
_PATIENCE_S = 30.0
"""How long a cell waits for a worker that was there when it was handed in and has gone."""


@contextmanager
def cluster(address: str, machines: Sequence[str] | None = None) -> Iterator[DaskCrew]:
    """The workers of a scheduler.

    Args:
        address: such as ``tcp://10.0.0.1:8786``.
        machines: slugs of those to measure on; the only one with the resource ``bench`` by default.

    Raises:
        InputError: no address.
        MissingPackageError: distributed is not installed.
        MissingError: no scheduler answers.
    """
    found = re.fullmatch(r"(?:(?:tcp|tls|ucx|ws|wss)://)?[^\s/]+:(\d{1,5})", address)
    if found is None or int(found[1]) > _LAST_PORT:
        raise InputError(f"--scheduler must be an address such as tcp://10.0.0.1:8786, not {address!r}")
    try:
        import distributed
    except ImportError as error:
        raise MissingPackageError("--scheduler needs distributed; pip install 'mbexport[dask]'") from error
    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # which tells of every worker that goes
    try:
        client = distributed.Client(address, timeout=_CONNECT_S, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        text = f"no Dask scheduler answers at {address} ({error}); start one with: dask scheduler"
        raise MissingError(text) from error
    with client:
        yield DaskCrew(client, address, machines)


def resources_for(targets: Sequence[str]) -> dict[str, int]:
    """What a worker must have for these targets: ``cuda``, ``openvino-gpu``, ``openvino-npu``."""
    devices = [split_target(target) for target in targets]
    named = {"cuda" if device == "cuda" else f"{engine}-{device}" for engine, device in devices if device in _SPECIAL}
    return dict.fromkeys(sorted(named), 1)


_SPECIAL = ("cuda", "gpu", "npu")


@dataclass(frozen=True)
class DaskCrew:
    """See :class:`mbexport.sweep.crew.Crew`."""

    client: Any
    address: str
    machines: Sequence[str] | None

    def outcomes(self, orders: Sequence[Order], workers: int) -> Iterator[Outcome]:  # noqa: ARG002 - they are as many as they are
        """A worker that dies loses nothing: the scheduler gives its cell to another."""
        if not orders:
            return
        needs = resources_for(orders[0].targets)
        lacking = self._lacking(needs)
        if lacking is not None:
            yield from (Outcome(order, None, lacking) for order in orders)
            return
        futures = {
            self.client.submit(
                errand.build, order, source_digest(), resources=needs, pure=False, retries=0, priority=-place
            ): order
            for place, order in enumerate(orders)
        }
        for future, lost in self._done(list(futures), needs):
            yield _outcome(futures[future], future, lost)

    def rows(
        self, artifact: Artifact, settings: Settings, bench: BenchSettings, progress: Callable[[str, float], None]
    ) -> dict[str, list[BenchRow]]:
        files = {path: (artifact.path / path).read_bytes() for path in (*artifact.manifest.files, MANIFEST)}
        found: dict[str, list[BenchRow]] = {}
        for machine in self.machines or [self._only_machine()]:
            progress(f"measure {artifact.manifest.slug} on {machine}", 0.0)
            path = settings.profiles / machine / f"{artifact.manifest.slug}.json"
            stored = path.read_bytes() if path.is_file() else None
            asked = Measuring(files, artifact.manifest.slug, settings.targets, bench, machine, stored)
            found[machine] = self._measured(asked, settings.profiles)
        return found

    def _measured(self, asked: Measuring, profiles: Path) -> list[BenchRow]:
        """The whole machine is this cell's: it has ``bench`` once."""
        needs = {BENCH: 1, asked.machine: 1, **resources_for(asked.targets)}
        lacking = self._lacking(needs)
        if lacking is not None:
            raise MissingError(lacking)
        future = self.client.submit(errand.measure, asked, source_digest(), resources=needs, pure=False)
        ((_, lost),) = self._done([future], needs)
        came = _result(future, lost)
        if came.error is not None:
            raise EngineError(came.error)
        profile = msgspec.json.decode(came.profile, type=LatencyProfile)
        with locked(profiles / asked.machine):
            write_profile(profile_path(profiles, profile.hardware, asked.name), profile)
        return list(came.rows)

    def _only_machine(self) -> str:
        """Of the workers that may measure."""
        addresses = [address for address, has in self._resources().items() if has.get(BENCH)]
        if not addresses:
            raise MissingError(f"no worker of {self.address} has {BENCH}; {_how({BENCH: 1})}")
        with self._answering():
            slugs = sorted(set(self.client.run(_own_slug, workers=addresses).values()))
        if len(slugs) > 1:
            raise InputError(f"workers on {', '.join(slugs)} may measure; choose with --hardware")
        machine: str = slugs[0]
        return machine

    def _resources(self) -> dict[str, Mapping[str, float]]:
        with self._answering():
            workers = self.client.scheduler_info(n_workers=-1)["workers"]
        return {address: info["resources"] for address, info in workers.items()}

    def _lacking(self, needs: Mapping[str, int]) -> str | None:
        """Why no worker can take a cell with these needs; None where one can."""
        there = list(self._resources().values())
        if any(all(has.get(name, 0) >= count for name, count in needs.items()) for has in there):
            return None
        if not there:
            return f"{self.address} has no workers; start one with: dask worker {self.address} --nthreads 1"
        return f"no worker of {self.address} has {' and '.join(needs)}; {_how(needs)}"

    def _done(self, futures: list[Any], needs: Mapping[str, int]) -> Iterator[tuple[Any, str | None]]:
        """Each as it is done, or with the reason why nobody is left to do it."""
        lonely_since: float | None = None
        try:
            while futures:
                lacking = None if self._waited(futures) else self._lacking(needs)
                lonely_since = None if lacking is None else lonely_since or time.monotonic()
                if lonely_since is not None and time.monotonic() - lonely_since > _PATIENCE_S:
                    yield from ((future, lacking) for future in futures)
                    return
                for future in [future for future in futures if future.done()]:
                    futures.remove(future)
                    yield future, None
        except EngineError as error:
            yield from ((future, str(error)) for future in futures)
            return
        finally:
            with suppress(OSError):  # the scheduler is gone, and with it what it would do
                self.client.cancel(futures)

    def _waited(self, futures: list[Any]) -> bool:
        """Whether one of them was done within a moment."""
        from distributed import wait

        with self._answering(), self.client.as_current():
            try:
                wait(futures, timeout=_POLL_S, return_when="FIRST_COMPLETED")
            except TimeoutError:
                return False
        return True

    @contextmanager
    def _answering(self) -> Iterator[None]:
        """Raises :class:`EngineError` where the scheduler is gone."""
        try:
            yield
        except (OSError, CancelledError) as error:
            raise EngineError(f"the scheduler at {self.address} is gone ({type(error).__name__})") from error


def _own_slug() -> str:
    from mbexport import hardware

    return hardware.detect().slug


def _how(needs: Mapping[str, int]) -> str:
    resources = " ".join(f"{name}={count}" for name, count in needs.items())
    return f'start one with: dask worker SCHEDULER --nthreads 1 --resources "{resources}"'


def _result(future: Any, lost: str | None) -> Any:
    """Raises :class:`EngineError` where the task itself came to nothing."""
    if lost is not None:
        raise EngineError(lost)
    if future.status != "finished":
        raise EngineError(
            f"the cluster gave it up: {future.exception() if future.status == 'error' else future.status}"
        )
    return future.result()


def _outcome(order: Order, future: Any, lost: str | None) -> Outcome:
    try:
        built = _result(future, lost)
        if built.delivery is None:
            return Outcome(order, None, built.error)
        target = Path(order.out) / order.cell.name
        refuse_foreign(target)
        with serde.atomic_folder(target) as fresh, serde.writing(target):
            for name, data in built.files.items():
                (fresh / Path(name).name).write_bytes(data)
        artifact = read_artifact(target)  # by its digests
        return Outcome(order, msgspec.structs.replace(built.delivery, artifact=str(artifact.path)), None)
    except MbexportError as error:
        return Outcome(order, None, str(error))
