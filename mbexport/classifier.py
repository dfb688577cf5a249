"""A network that tells classes apart, opened on a runtime: pictures in, one number a class out."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Self

import msgspec
import numpy as np

from mbexport.artifact import read_labels
from mbexport.errors import ArtifactError, EngineError, InputError
from mbexport.images import network_input, picture_size
from mbexport.runtimes import SessionOptions, load_engine, split_target

if TYPE_CHECKING:
    from types import TracebackType

    from numpy.typing import NDArray

    from mbexport.artifact import Artifact
    from mbexport.labels import Label
    from mbexport.manifest import InputContract, OutputContract
    from mbexport.quantities import Mode
    from mbexport.runtimes import Session


class ClassName(msgspec.Struct, frozen=True, kw_only=True):
    """A class: its number, and its label's id and name where they are known."""

    index: int
    id: str | None
    label: str | None


class ClassNames:
    """From a class's number to what it is called."""

    def __init__(self, artifact: Artifact, output: OutputContract) -> None:
        self.count: int = output.shape[-1] or 0
        self.labels: list[Label] | None = read_labels(artifact)
        if self.labels is not None and len(self.labels) != self.count:
            raise ArtifactError(
                f"{artifact.path} has {len(self.labels)} labels for the {self.count} classes of {output.name}; "
                "build it again with labels that fit"
            )

    def name(self, index: int) -> ClassName:
        label = self.labels[index] if self.labels is not None else None
        return ClassName(index=index, id=label.id if label else None, label=label.name if label else None)


def classifier_outputs(artifact: Artifact) -> list[OutputContract]:
    """The outputs that classify, as the network orders them; the first is the one that is used.

    Raises:
        InputError: there is none.
    """
    outputs = artifact.manifest.outputs
    found = [output for output in outputs if output.kind != "features" and len(output.shape) == 2]
    if not found:
        names = ", ".join(f"{output.name} {output.shape}" for output in outputs)
        raise InputError(
            f"{artifact.path} does not classify: its outputs are features ({names}); "
            "build it with its top, or convert a network that has a classifier"
        )
    return found


class Classifier:
    """A session of an artifact with one classifying output. Several threads may share it; they take turns."""

    def __init__(self, target: str, session: Session, contract: InputContract, output: OutputContract) -> None:
        self.target = target
        self.batch = contract.shape[0] or 1
        """Pictures per call."""
        self._session = session
        self._contract = contract
        self._output = output
        self._turn = threading.Lock()

    def __enter__(self) -> Self:
        self._session.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._session.__exit__(kind, error, trace)

    def precision(self) -> str:
        """What the engine says that it computes in: f32, tf32, bf16, f16 or int8."""
        return self._session.facts().precision

    def scores(self, pictures: NDArray[np.uint8]) -> NDArray[Any]:
        """(n, classes) for at most ``batch`` pictures (n, height, width, channels). The last one fills up the batch.

        Raises:
            EngineError: the engine failed, or the network's answer is not finite.
        """
        rows = np.minimum(np.arange(self.batch), len(pictures) - 1)
        feeds = {self._contract.name: network_input(pictures[rows], self._contract)}
        with self._turn:
            found: NDArray[Any] = self._session.run(feeds)[self._output.name][: len(pictures)]
        if not np.isfinite(found).all():
            raise EngineError(
                f"{self.target} answers with numbers that are not finite; check the artifact with: mbexport validate"
            )
        return found

    def probabilities(self, pictures: NDArray[np.uint8]) -> NDArray[np.float64]:
        """:meth:`scores`, after softmax where they are logits."""
        scores = self.scores(pictures).astype(np.float64)
        if self._output.kind == "probabilities":
            return scores
        exponents: NDArray[np.float64] = np.exp(scores - scores.max(axis=-1, keepdims=True))
        exponents /= exponents.sum(axis=-1, keepdims=True)
        return exponents


def open_classifier(
    artifact: Artifact,
    target: str,
    output: OutputContract,
    threads: int | None,
    *,
    mode: Mode = "parity",
    concurrent: bool = False,
) -> Classifier:
    """Load the artifact's model for ``target``; ``concurrent`` where others run at the same time.

    Raises:
        EngineError: the engine cannot run it.
        MissingError: the engine or device is not here.
    """
    engine, device = split_target(target)
    contract = artifact.manifest.input
    batch, size = contract.shape[0] or 1, picture_size(contract)
    options = SessionOptions(threads=threads, batch=batch, size=size, mode=mode, concurrent=concurrent)
    session = load_engine(engine).open(artifact.model_path(target), device, options)
    return Classifier(target, session, contract, output)


def best(scores: NDArray[Any], count: int) -> NDArray[np.intp]:
    """(n, count): the numbers of the highest scores (n, classes), best first; of equal ones the lower number first."""
    order: NDArray[np.intp] = np.argsort(-scores, axis=-1, kind="stable")[:, :count]
    return order
