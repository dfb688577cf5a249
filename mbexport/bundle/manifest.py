"""``bundle.json``: what a bundle holds, for machines. Structs alone, no I/O."""

from __future__ import annotations

import msgspec

from mbexport.spec import Precision

SCHEMA_VERSION = 1
BUNDLE = "bundle.json"
README = "README.md"
SBOM = "sbom.cdx.json"
INFER = "infer.py"
SIGNATURE = "model.sig"
"""OpenSSF model signing's own name for it. It signs all other files, and no digest of it is listed."""
ARTIFACTS, EVIDENCE, GOLDEN = "artifacts", "evidence", "golden"


class BundledArtifact(msgspec.Struct, frozen=True, kw_only=True):
    """One artifact folder, as it was built."""

    path: str
    """Its folder in the bundle."""
    slug: str
    sha256: str
    """Of its model.onnx."""
    precision: Precision


class Serving(msgspec.Struct, frozen=True, kw_only=True):
    """How to run the network on one engine, in the engine's own words."""

    engine: str
    package: str
    """What ``import`` calls it."""
    device: str
    """ONNX Runtime's provider or OpenVINO's device."""
    model: str
    """Path in the bundle."""
    settings: dict[str, str]
    tuned_on: str | None = None
    """Slug of the machine that these settings were found on; None where they are the defaults."""


class ExpectedClass(msgspec.Struct, frozen=True, kw_only=True):
    """What Keras answered."""

    index: int
    name: str | None
    value: float
    """Its probability, or its logit where the network ends in logits."""


class GoldenPicture(msgspec.Struct, frozen=True, kw_only=True):
    """A picture and what is expected of it."""

    picture: str
    """Path in the bundle."""
    top: list[ExpectedClass]
    """The likeliest first, at most five; none where the network does not classify."""


class BundleManifest(msgspec.Struct, frozen=True, kw_only=True):
    """``bundle.json``. ``files`` maps every other member but the signature to its sha256."""

    schema_version: int = SCHEMA_VERSION
    mbexport: str
    """The version that made it."""
    artifacts: list[BundledArtifact]
    serving: list[Serving]
    """The best first; each runs the first artifact or one made of it."""
    golden: list[GoldenPicture]
    files: dict[str, str]
