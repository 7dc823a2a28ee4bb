"""What weights are, by the file itself and by the recipe or command that names it: the two must not contradict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard

from finetune.models.checkpoints.hub import CheckpointKind, HubFile, published
from finetune.models.encoder_specs import VERSIONS
from finetune.utils.errors import CheckpointError, shown


@dataclass(frozen=True, kw_only=True)
class ArgumentNames:
    """How messages name the arguments of ``read_checkpoint``: by default as a recipe does.

    Attributes:
        source: how to name another source.
        kind, max_depth_m, version, input_size: the arguments.
        no_max_depth, no_input_size: how to give none.
    """

    source: str = "set model.checkpoint:"
    kind: str = "model.checkpoint_kind"
    max_depth_m: str = "model.checkpoint_max_depth_m"
    version: str = "model.checkpoint_version"
    no_max_depth: str = "Set model.checkpoint_max_depth_m to null"
    input_size: str = "model.checkpoint_input_size"
    no_input_size: str = "Set model.checkpoint_input_size to null"


IN_RECIPE = ArgumentNames()
# What the published weights were trained at, height and width in pixels; their files cannot say it.
ORIGINAL_INPUT_SIZE = (518, 518)
# From the range of an endoscope to that of an airplane; a number outside is in another unit, or damaged.
MIN_DEPTH_M, MAX_DEPTH_M = 1e-3, 1e5


@dataclass(frozen=True, kw_only=True)
class CheckpointIdentity:
    """What weights are, as far as it is known; tensor names do not tell.

    Attributes:
        kind: ``encoder`` is one without a decoder.
        max_depth_m: of metric weights, meters.
        version: ``v1`` or ``v2``: which blocks the decoder reads.
    """

    kind: CheckpointKind | None = None
    max_depth_m: float | None = None
    version: str | None = None


def claim_identity(says: Mapping[str, object], entry: HubFile | None, file: str) -> CheckpointIdentity:
    """
    Args:
        says: of a ``Description``.
        entry: of the hub's table; it counts where the file says nothing.
        file: what ``says`` was read from.

    Raises:
        CheckpointError: kind, max depth and version are not ones that a network can have.
    """
    if says.keys() <= {"position_offset", "preprocessing"}:
        if entry is None:
            return CheckpointIdentity()
        return CheckpointIdentity(kind=entry.kind, max_depth_m=entry.max_depth_m, version=entry.version)
    kind, max_depth_m = says.get("kind"), says.get("max_depth_m")
    # Our files without a version are V2: they were written before there was a choice.
    version = says.get("checkpoint_version", "v2")
    if not isinstance(version, str) or version not in VERSIONS:
        raise CheckpointError(
            file, f"says checkpoint_version {shown(version)}; expected v1 or v2", "Export it again from its run folder"
        )
    if kind == "encoder" and max_depth_m is None:
        return CheckpointIdentity(kind="encoder")
    if kind in ("relative", "relative_depth") and max_depth_m is None:
        return CheckpointIdentity(kind="relative" if kind == "relative" else "relative_depth", version=version)
    if kind == "metric" and is_depth(max_depth_m):
        return CheckpointIdentity(kind="metric", max_depth_m=float(max_depth_m), version=version)
    raise CheckpointError(
        file,
        f"says kind {shown(kind)} and max_depth_m {shown(max_depth_m)}; expected metric and {MIN_DEPTH_M:g} to "
        f"{MAX_DEPTH_M:g} meters, or relative or relative_depth and none",
        "Export it again from its run folder",
    )


def resolve_identity(
    claim: CheckpointIdentity,
    stated: CheckpointIdentity,
    source: str,
    path: Path,
    in_brackets: str,
    wording: ArgumentNames,
) -> tuple[CheckpointKind, float | None, str]:
    """
    Args:
        claim: of the file.
        stated: by the recipe or the command; None leaves it to the file.

    Returns:
        Kind, max depth in meters and version, on which both agree or which one of them says.

    Raises:
        CheckpointError: they contradict each other, or neither says what is needed.
    """
    version = _resolve_version(claim, stated, source, path, in_brackets, wording)
    if claim.kind is not None and stated.kind not in (None, claim.kind):
        is_what = "an encoder alone" if claim.kind == "encoder" else claim.kind
        raise CheckpointError(
            source,
            f"is {is_what}, {wording.kind} says {stated.kind}",
            f"Set {wording.kind} to auto{in_brackets}",
        )
    if claim.max_depth_m is not None and stated.max_depth_m not in (None, claim.max_depth_m):
        raise CheckpointError(
            source,
            f"has max depth {claim.max_depth_m:g} m, {wording.max_depth_m} says {stated.max_depth_m:g}",
            f"{wording.no_max_depth}{in_brackets}",
        )
    known = published(path.name)
    if claim.kind is None and stated.kind is None and "metric" in path.stem:
        depth = f"{known.max_depth_m:g}" if known and known.max_depth_m else "its max depth in meters"
        raise CheckpointError(
            source,
            "has metric in its name, but the file itself cannot say so",
            f"Set {wording.kind} to metric and {wording.max_depth_m} to {depth}{in_brackets}",
        )
    kind = claim.kind or stated.kind or "relative"
    depth_m = claim.max_depth_m if claim.max_depth_m is not None else stated.max_depth_m
    if kind == "metric" and depth_m is None:
        raise CheckpointError(
            source,
            "is metric, but nothing says its max depth",
            f"Set {wording.max_depth_m} to the meters it was trained with{in_brackets}",
        )
    if kind != "metric" and depth_m is not None:
        either = f", or set {wording.kind} to metric" if claim.kind is None else ""
        raise CheckpointError(
            source,
            f"is {'an encoder alone' if kind == 'encoder' else kind}, which has no max depth; {wording.max_depth_m} "
            f"says {depth_m:g}",
            f"{wording.no_max_depth}{either}{in_brackets}",
        )
    return kind, depth_m, version


def _resolve_version(
    claim: CheckpointIdentity,
    stated: CheckpointIdentity,
    source: str,
    path: Path,
    in_brackets: str,
    wording: ArgumentNames,
) -> str:
    if claim.version is not None and stated.version not in (None, claim.version):
        raise CheckpointError(
            source,
            f"is {claim.version.upper()}, {wording.version} says {stated.version}",
            f"Set {wording.version} to auto{in_brackets}",
        )
    known = published(path.name)
    if claim == CheckpointIdentity() and stated.version is None and known and known.version == "v1":
        raise CheckpointError(
            source,
            "has the name of V1 weights, but the file itself cannot say so",
            f"Set {wording.version} to v1, or to v2 if that is what it is{in_brackets}",
        )
    return claim.version or stated.version or "v2"


def is_depth(value: object) -> TypeGuard[float]:
    """Whether it is a depth in meters that a camera can see; JSON also has NaN, Infinity and true."""
    return type(value) in (int, float) and MIN_DEPTH_M <= value <= MAX_DEPTH_M  # type: ignore[operator]


def resolve_input_size(
    says: Mapping[str, object],
    stated: tuple[int, int] | None,
    entry: HubFile | None,
    source: str,
    in_brackets: str,
    wording: ArgumentNames,
) -> tuple[int, int] | None:
    """
    Args:
        says: of a ``Description``.
        stated: by the recipe or the command; None leaves it to the file.
        entry: of the hub's table.

    Returns:
        Height and width in pixels that the weights were trained at; None where nothing says it.

    Raises:
        CheckpointError: the file and the recipe contradict each other.
    """
    preprocessing = says.get("preprocessing")
    sides = preprocessing.get("input_size") if isinstance(preprocessing, Mapping) else None
    claim = None
    if isinstance(sides, list | tuple) and len(sides) == 2 and all(isinstance(side, int) for side in sides):
        claim = (sides[0], sides[1])
    elif entry is not None and entry.kind != "encoder":
        claim = ORIGINAL_INPUT_SIZE
    if stated is not None and claim not in (None, stated):
        raise CheckpointError(
            source,
            f"was trained at {claim[0]}x{claim[1]} (height x width), {wording.input_size} says {stated[0]}x{stated[1]}",
            f"{wording.no_input_size}{in_brackets}",
        )
    return stated or claim
