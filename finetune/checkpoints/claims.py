"""What a weights file says of itself, and what a recipe or a command says of it: they agree, or one is silent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import torch

from finetune.checkpoints.hub import HUB_FILES, HubFile
from finetune.errors import CheckpointError


@dataclass(frozen=True, kw_only=True)
class Wording:
    """How a sentence names the arguments of ``read_checkpoint``: as a recipe does, unless said otherwise.

    Attributes:
        source: to write another source.
        kind, max_depth_m: the two arguments.
        no_max_depth: to write none.
    """

    source: str = "set model.checkpoint:"
    kind: str = "model.checkpoint_kind"
    max_depth_m: str = "model.checkpoint_max_depth_m"
    no_max_depth: str = "Set model.checkpoint_max_depth_m to null"


IN_RECIPE = Wording()


@dataclass(frozen=True)
class Claim:
    """What a file, or what is known about it, says of its own meaning."""

    kind: str | None
    max_depth_m: float | None

    @classmethod
    def of(cls, metadata: Mapping[str, Any], entry: HubFile | None, metadata_file: str) -> Claim:
        """
        Raises:
            CheckpointError: kind and max depth are not ones that a file of ours or of our export can have.
        """
        if entry:
            return cls(entry.kind, entry.max_depth_m)
        if not metadata:
            return cls(None, None)
        kind, max_depth_m = metadata.get("kind"), metadata.get("max_depth_m")
        if kind == "relative" and max_depth_m is None:
            return cls(kind, None)
        if kind == "metric" and _is_depth(max_depth_m):
            return cls(kind, float(max_depth_m))
        raise CheckpointError(
            metadata_file,
            f"says kind {kind!r} and max_depth_m {max_depth_m!r}; expected metric and a positive number of meters, or "
            "relative and none",
            "Export it again from its run folder",
        )

    def settle(
        self, source: str, path: Path, kind: str, max_depth_m: float | None, in_brackets: str, wording: Wording
    ) -> tuple[str, float | None]:
        """Kind and max depth, where the file and the recipe agree or only one of them speaks."""
        if self.kind is not None and kind not in ("auto", self.kind):
            raise CheckpointError(
                source,
                f"is {self.kind}, {wording.kind} says {kind}",
                f"Set {wording.kind} to auto{in_brackets}",
            )
        if self.max_depth_m is not None and max_depth_m not in (None, self.max_depth_m):
            raise CheckpointError(
                source,
                f"has max depth {self.max_depth_m:g} m, {wording.max_depth_m} says {max_depth_m:g}",
                f"{wording.no_max_depth}{in_brackets}",
            )
        if self.kind is None and kind == "auto" and "metric" in path.stem:
            published = next((entry for entry in HUB_FILES.values() if entry.file == path.name), None)
            depth = f"{published.max_depth_m:g}" if published and published.max_depth_m else "its max depth in meters"
            raise CheckpointError(
                source,
                "is called metric, but the file itself cannot say so",
                f"Set {wording.kind} to metric and {wording.max_depth_m} to {depth}{in_brackets}",
            )
        settled = self.kind or ("relative" if kind == "auto" else kind)
        depth_m = self.max_depth_m if self.max_depth_m is not None else max_depth_m
        if settled == "metric" and depth_m is None:
            raise CheckpointError(
                source,
                "is metric, but nothing says its max depth",
                f"Set {wording.max_depth_m} to the meters it was trained with{in_brackets}",
            )
        if settled == "relative" and depth_m is not None:
            raise CheckpointError(
                source,
                f"is relative, which has no max depth; {wording.max_depth_m} says {depth_m:g}",
                f"{wording.no_max_depth}, or set {wording.kind} to metric{in_brackets}",
            )
        return settled, depth_m


def _is_depth(value: object) -> TypeGuard[float]:
    """Whether it is a positive number that the network can compute with; JSON also has NaN, Infinity and true."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return 0 < value <= torch.finfo(torch.float32).max
