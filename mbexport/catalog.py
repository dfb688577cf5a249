"""The ImageNet checkpoints by name: which there are, what was published of them, and which of these figures hold."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

import msgspec

from mbexport.architecture import macs, parameters, parameters_without_batch_norm, trainable_parameters
from mbexport.errors import SpecError
from mbexport.pretrained import CLASSES, V2_ALPHAS, V2_HOLES, V2_SIDES_PX, Checkpoint, checkpoint
from mbexport.published import PUBLISHED, Published
from mbexport.spec import ModelSpec, parse_resolution

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any

__all__ = ["HOLES", "PUBLISHED", "WITHOUT_FIGURES", "Info", "Published", "describe", "find", "spec_by_name", "spec_of"]
_NOT_IN_A_NAME = {"classes", "include_top", "pooling", "classifier_activation", "dropout_rate", "include_preprocessing"}
"""What a published name leaves open."""


class Info(msgspec.Struct, frozen=True, kw_only=True):
    """One spec: computed figures, published ones, and a sentence for each published figure that does not hold."""

    spec: ModelSpec
    parameters: int
    """As Keras's ``count_params()``."""
    trainable_parameters: int
    parameters_without_batch_norm: int
    macs: int
    macs_at: tuple[int, int]
    """Height and width in pixels that they are counted at: the spec's own, 224x224 where these are dynamic."""
    published: Published | None
    disagreements: list[str]
    imagenet: Checkpoint | None
    """What ``--weights imagenet`` takes."""
    no_imagenet: str | None
    """Why there is no such file, where there is none."""


def _v2_network(alpha: float, side: int) -> ModelSpec:
    return ModelSpec(variant="v2", alpha=alpha, height=side, width=side)


_BY_NETWORK = {
    (entry.spec.variant, entry.spec.minimalistic, entry.spec.alpha, entry.spec.height, entry.spec.width): entry
    for entry in PUBLISHED
}
HOLES: tuple[ModelSpec, ...] = tuple(_v2_network(alpha, side) for alpha, side in sorted(V2_HOLES))
"""In V2's grid of alpha and resolution, but never published."""
WITHOUT_FIGURES: tuple[ModelSpec, ...] = tuple(
    _v2_network(alpha, side)
    for alpha in V2_ALPHAS
    for side in V2_SIDES_PX
    if ("v2", False, alpha, side, side) not in _BY_NETWORK and (alpha, side) not in V2_HOLES
)
"""Keras has weights for these, but nobody published figures."""
_BY_NAME = (
    {entry.name: entry.spec for entry in PUBLISHED}
    | {entry.timm.name: entry.spec for entry in PUBLISHED if entry.timm is not None}
    | {spec.slug: spec for spec in WITHOUT_FIGURES}
)


def find(spec: ModelSpec) -> Published | None:
    """The checkpoint whose figures speak of ``spec``, a 1000-class classifier; its activation does not matter."""
    if not spec.include_top or spec.classes != CLASSES:
        return None
    return _BY_NETWORK.get((spec.variant, spec.minimalistic, spec.alpha, spec.height, spec.width))


def spec_of(given: Mapping[str, Any], word: Callable[[str], str] = str) -> ModelSpec:
    """The network that someone describes.

    Args:
        given: fields of :class:`ModelSpec`, but ``resolution`` (text) for height and width; or ``model``, a published
            name, with what such a name leaves open.
        word: what a field is called where it was given.

    Raises:
        SpecError: no network named, a name together with what it settles, or values that no Keras MobileNet accepts.
    """
    others = {name: value for name, value in given.items() if name not in {"model", "resolution"}}
    if "model" in given:
        fixed = [word(name) for name in given if name != "model" and name not in _NOT_IN_A_NAME]
        if fixed:
            text = f"{word('model')} names the whole network, so it cannot stand beside {', '.join(fixed)}"
            raise SpecError(f"{text}; drop one or the other")
        return msgspec.structs.replace(spec_by_name(given["model"]), **others)
    if "variant" not in given:
        raise SpecError(
            f"which network? give {word('variant')} v2, large or small, or {word('model')} NAME (see: mbexport list)"
        )
    if "resolution" in given:
        others["height"], others["width"] = parse_resolution(given["resolution"])
    return ModelSpec(**others)


def spec_by_name(name: str) -> ModelSpec:
    """The network of a published name: Keras's (``mobilenet_v3_large_0.75_224``) or timm's.

    Raises:
        SpecError: no such name.
    """
    wanted = name.strip().lower()
    if wanted in _BY_NAME:
        return _BY_NAME[wanted]
    for hole in HOLES:
        if wanted == hole.slug:
            raise SpecError(
                f"{wanted} is a hole in the published grid: it has neither weights nor figures; build the network with "
                f"--variant v2 --alpha {hole.alpha} --resolution {hole.resolution}"
            )
    near = difflib.get_close_matches(wanted, _BY_NAME, 1)
    hint = f"did you mean {near[0]}?" if near else "they are listed by: mbexport list."
    raise SpecError(f"no published model is called {name!r}; {hint} Others are built with --variant and --alpha")


def describe(spec: ModelSpec) -> Info:
    """Computed figures beside the published ones."""
    published = find(spec)
    file, why_none = None, None
    try:
        file = checkpoint(spec)
    except SpecError as error:
        why_none = str(error)
    return Info(
        spec=spec,
        parameters=parameters(spec),
        trainable_parameters=trainable_parameters(spec),
        parameters_without_batch_norm=parameters_without_batch_norm(spec),
        macs=macs(spec),
        macs_at=spec.size,
        published=published,
        disagreements=[] if published is None else list(_disagreements(spec, published)),
        imagenet=file,
        no_imagenet=why_none,
    )


def _disagreements(spec: ModelSpec, published: Published) -> Iterator[str]:
    if not _holds(published.macs_millions, macs(spec), 0):
        yield (
            f"the published {published.macs_millions} M multiply-accumulates do not hold: "
            f"the network has {macs(spec) / 1e6:.1f} M"
        )
    bare = parameters_without_batch_norm(spec)
    if not _holds(published.parameters_millions, bare, published.parameters_decimals):
        yield (
            f"the published {published.parameters_millions} M parameters do not hold: the network has "
            f"{trainable_parameters(spec) / 1e6:.2f} M trainable ones ({bare / 1e6:.2f} M without batch norm, "
            f"{parameters(spec) / 1e6:.2f} M with its moving statistics)"
        )
    if published.timm is not None and not _holds(published.timm.parameters_millions, trainable_parameters(spec), 2):
        yield (
            f"timm's {published.timm.parameters_millions} M parameters do not hold: "
            f"the network has {trainable_parameters(spec) / 1e6:.2f} M trainable ones"
        )


def _holds(published_millions: float, computed: int, decimals: int) -> bool:
    """Whether ``computed`` gives the published figure by rounding or by cutting off, as TF-slim's table does.

    That table says 11 for 11.93 M: a tolerance in percent wide enough for it would miss real errors elsewhere.
    """
    return abs(published_millions - computed / 1e6) < 10.0**-decimals
