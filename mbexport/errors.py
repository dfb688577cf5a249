"""The one exception tree.

Every error that a user can cause or mend is an :class:`MbexportError`. Its message is one or two lines: what was
expected, what came, and what mends it. ``exit_code`` is what the command line ends with.
"""

from __future__ import annotations


class MbexportError(Exception):
    """Base of all errors that mbexport raises on purpose."""

    exit_code = 1


class ProcessError(MbexportError):
    """A process of mbexport's own, which measured or built, died before it could answer."""


class ConversionError(MbexportError):
    """A network could not be turned into a correct ONNX graph."""


class EngineError(MbexportError):
    """A runtime could not load or run a model that is whole."""


class UnprovenError(MbexportError):
    """What was to be shipped fails its own checks."""


class InputError(MbexportError):
    """Something that the caller gave is wrong; the call must change."""

    exit_code = 2


class SpecError(InputError):
    """A model specification that no Keras MobileNet fits."""


class WeightsError(InputError):
    """A weights file that is missing, damaged, or of another network."""


class ArtifactError(InputError):
    """A folder that is not a whole, unaltered artifact."""


class BundleError(InputError):
    """A file that is not a whole, unaltered bundle, or contents that cannot make one."""


class UntiedGraphError(InputError):
    """Pictures without a truth: the graph, evaluated in float64, is not the network that Keras computed."""


class PictureError(InputError):
    """A picture file that cannot be used. ``reason`` says why, without the file's name."""

    def __init__(self, path: object, reason: str) -> None:
        super().__init__(f"{path} {reason}")
        self.reason = reason


class PipelineFileError(InputError):
    """A pipeline file with faults: a line for each, and where it stands."""


class DocumentError(InputError):
    """A JSON document that is malformed or of a schema version that this release does not know."""


class NewerSchemaError(DocumentError):
    """A document that a newer release wrote."""


class OutputError(InputError):
    """A place that cannot be written to."""


class CacheError(OutputError):
    """The cache's folder cannot be used."""


class MissingError(MbexportError):
    """Something that is needed is not on this machine."""

    exit_code = 3


class MissingPackageError(MissingError):
    """A Python package is not installed, or is broken."""


class MissingDeviceError(MissingError):
    """A runtime or device is not available here."""


class MissingDownloadError(MissingError):
    """A file that has to be downloaded first, and cannot be."""
