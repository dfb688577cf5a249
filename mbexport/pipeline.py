"""The two ways to an artifact: a network of Keras's, and a user's own. What follows is one flow, in ``export``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mbexport.export import BuildResult, Order
from mbexport.export import export as run_export
from mbexport.spec import ExportOptions

if TYPE_CHECKING:
    from collections.abc import Callable

    import keras

    from mbexport.graph import PassStep
    from mbexport.spec import ModelSpec
    from mbexport.subject import Subject


def build(  # noqa: PLR0913 - each is an option of the command line
    spec: ModelSpec,
    *,
    export: ExportOptions | None = None,
    weights: str = "random",
    seed: int = 0,
    out: Path = Path("artifacts"),
    strict: bool = False,
    labels: Path | None = None,
    golden: Path | None = None,
    input_tensor: keras.KerasTensor | None = None,
    progress: Callable[[str], None] | None = None,
    observe: Callable[[PassStep], None] | None = None,
) -> BuildResult:
    """Build, convert, simplify, check against Keras, and write ``out/<slug>/``.

    Args:
        spec: the network.
        export: the form of the file; the defaults are NHWC, float32 and a dynamic batch.
        weights: ``random`` (seeded and calibrated), ``imagenet``, ``timm:FILE``, ``slim:PREFIX``, or the path of a
            Keras file.
        seed: of random weights.
        out: the folder in which the artifact's folder is made.
        strict: fail where a pass had to be rolled back, instead of going on without it.
        labels: a file of class labels; without it, 1000 classes are ImageNet's.
        golden: a folder of pictures, of which up to three travel in the artifact with the top 5 expected for them.
        input_tensor: the Keras tensor to build on, of the spec's size. What leads to it becomes part of the network.
        progress: told what is being done.
        observe: told what each pass did to the graph.

    Raises:
        ConversionError: the graph cannot be made, or its outputs do not agree with Keras; with ``strict``, a pass was
            rolled back. What stood in ``out`` stays as it was.
        InputError: labels or golden pictures that do not fit.
        MissingError: the ``build`` extra is not installed, or weights cannot be downloaded.
        OutputError: ``out`` cannot be written to.
        SpecError: the network would not fit into memory or into an ONNX file, the installed ONNX Runtime does not know
            the opset, or there are no such weights for this network.
        WeightsError: the weights file does not fit.
    """
    order = Order(export or ExportOptions(), out, strict, labels, golden, progress, observe)

    def early() -> None:
        from mbexport.memory import check_memory
        from mbexport.weights import check

        check_memory(spec, order.export.batch or 1)
        check(weights, spec)

    def subject() -> Subject:
        from mbexport.build import subject_of

        return subject_of(spec, weights, seed, input_tensor)

    return run_export(order, spec.slug, early, subject)


def convert(  # noqa: PLR0913 - each is an option of the command line
    model: Path,
    *,
    name: str | None = None,
    size: tuple[int, int] | None = None,
    input_range: tuple[float, float] | None = None,
    allow_unsafe: bool = False,
    export: ExportOptions | None = None,
    out: Path = Path("artifacts"),
    strict: bool = False,
    labels: Path | None = None,
    golden: Path | None = None,
    progress: Callable[[str], None] | None = None,
    observe: Callable[[PassStep], None] | None = None,
) -> BuildResult:
    """Convert a user's own network, saved by Keras 3 or Keras 2, as :func:`build` does its own.

    Args:
        model: a ``.keras`` or ``.h5`` file of a whole model, or a SavedModel folder; one picture in.
        name: of the artifact; without it, that of the file.
        size: height and width in pixels, where the model leaves them open.
        input_range: what the model expects pictures of 0..255 to be brought to; without it, read off its graph.
        allow_unsafe: run the Python code that a Lambda layer holds. Only for a file whose source is trusted.
        export: as for :func:`build`, and so are the following.
        out: the folder in which the artifact's folder is made.
        strict: fail where a pass had to be rolled back.
        labels: a file of class labels.
        golden: a folder of pictures to keep in the artifact.
        progress: told what is being done.
        observe: told what each pass did to the graph.

    Raises:
        ConversionError: a layer cannot be converted, or the graph does not agree with the framework.
        InputError: a file that is no such model, holds code, or does not fit what else was given.
        MissingPackageError: the ``build`` extra is not installed.
        OutputError: ``out`` cannot be written to.
    """
    from mbexport.user_subject import check_request, slug_of

    order = Order(export or ExportOptions(), out, strict, labels, golden, progress, observe)
    slug = slug_of(model, name)

    def subject() -> Subject:
        from mbexport.user_subject import subject_of

        return subject_of(model, slug, size=size, input_range=input_range, allow_unsafe=allow_unsafe)

    return run_export(order, slug, lambda: check_request(model, input_range), subject)
