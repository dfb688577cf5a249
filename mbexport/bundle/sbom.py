"""The bill of materials, CycloneDX 1.6: the model files, their weights' origin, and the tools that made them."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from mbexport.bundle.manifest import ARTIFACTS
from mbexport.errors import MissingPackageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from mbexport.artifact import Artifact
    from mbexport.manifest import Manifest

_NO_TIME = datetime(1980, 1, 1, tzinfo=UTC)
"""The library insists on a time; any other would make other bytes of the same content."""


def sbom(artifacts: Sequence[Artifact], runtimes: Mapping[str, str]) -> bytes:
    """JSON, the same for the same content.

    Args:
        artifacts: what is bundled.
        runtimes: distribution -> version, of the engines that the artifacts were validated on.

    Raises:
        MissingPackageError: CycloneDX's library is not installed.
    """
    require_cyclonedx()
    from cyclonedx.model.bom import Bom, BomMetaData
    from cyclonedx.model.component import ComponentScope
    from cyclonedx.model.tool import ToolRepository
    from cyclonedx.output.json import JsonV1Dot6

    digests = "".join(digest for artifact in artifacts for _, digest in sorted(artifact.manifest.files.items()))
    made_with = {tool for artifact in artifacts for tool in artifact.manifest.tools.items()}
    models = [model for artifact in artifacts for model in _models(artifact.manifest)]
    needed = [_library(name, version, scope=ComponentScope.OPTIONAL) for name, version in sorted(runtimes.items())]
    bom = Bom(
        serial_number=uuid.uuid5(uuid.NAMESPACE_OID, digests),
        metadata=BomMetaData(
            timestamp=_NO_TIME,
            component=models[0],
            tools=ToolRepository(components=[_library(*tool) for tool in sorted(made_with)]),
        ),
        components=[*models[1:], *needed],
    )
    bom.register_dependency(models[0], needed)
    text: str = JsonV1Dot6(bom).output_as_string(indent=2)
    return f"{text}\n".encode()


def require_cyclonedx() -> None:
    """Raise :class:`MissingPackageError` where a bill of materials cannot be written here."""
    try:
        import cyclonedx.output.json  # noqa: F401
    except ImportError as error:
        raise MissingPackageError(
            f"a bundle's bill of materials needs {error.name}; pip install 'mbexport[bundle]'"
        ) from error


def _models(manifest: Manifest) -> Iterator[Any]:
    """Each model file, with the data that its weights are."""
    from cyclonedx.model import HashAlgorithm, HashType, Property
    from cyclonedx.model.component import Component, ComponentType

    weights = manifest.weights
    origin = {"weights": weights.kind, "weights-sha256": weights.sha256, "weights-seed": weights.seed}
    told = {**origin, "precision": manifest.precision, "slug": manifest.slug}
    for name in sorted(set(manifest.models.values())):
        path = f"{ARTIFACTS}/{manifest.slug}/{name}"
        yield Component(
            name=path,
            version=manifest.tools.get("mbexport"),
            type=ComponentType.MACHINE_LEARNING_MODEL,
            bom_ref=path,
            hashes=[HashType(alg=HashAlgorithm.SHA_256, content=manifest.files[name])],
            properties=[
                Property(name=f"mbexport:{key}", value=str(value)) for key, value in told.items() if value is not None
            ],
        )


def _library(name: str, version: str, scope: Any = None) -> Any:
    from cyclonedx.model.component import Component, ComponentType
    from packageurl import PackageURL

    purl = PackageURL(type="pypi", name=name, version=version)
    return Component(name=name, version=version, type=ComponentType.LIBRARY, bom_ref=str(purl), purl=purl, scope=scope)
