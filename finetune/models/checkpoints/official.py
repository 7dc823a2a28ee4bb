"""The official Depth Anything weights file, V2 or V1: its tensor names <-> ours. Values are never changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from finetune.models.checkpoints.format import Description, Format
from finetune.models.checkpoints.sidecar import read_json

if TYPE_CHECKING:
    from torch import Tensor

# Ours, theirs. Their refinenet4 is the deepest scale, our fuse.3.
PREFIXES = (
    ("encoder.", "pretrained."),
    ("decoder.project.", "depth_head.projects."),
    ("decoder.resize.", "depth_head.resize_layers."),
    *((f"decoder.reduce.{scale}.", f"depth_head.scratch.layer{scale + 1}_rn.") for scale in range(4)),
    *((f"decoder.fuse.{n}.skip_unit.", f"depth_head.scratch.refinenet{n + 1}.resConfUnit1.") for n in range(4)),
    *((f"decoder.fuse.{n}.unit.", f"depth_head.scratch.refinenet{n + 1}.resConfUnit2.") for n in range(4)),
    *((f"decoder.fuse.{n}.out.", f"depth_head.scratch.refinenet{n + 1}.out_conv.") for n in range(4)),
    ("head.reduce.", "depth_head.scratch.output_conv1."),
    ("head.refine.", "depth_head.scratch.output_conv2.0."),
    ("head.last.", "depth_head.scratch.output_conv2.2."),
)
# The gated feed-forward part of vitg: timm's name, then theirs.
GATED = ((".mlp.fc1.", ".mlp.w12."), (".mlp.fc2.", ".mlp.w3."))


class Official(Format):
    """``.pth`` as published; it cannot say whether it is relative or metric, nor whether it is V1 or V2."""

    files = ("pytorch_model.bin",)

    @staticmethod
    def recognises(names: Iterable[str], metadata: Mapping[str, object]) -> bool:
        """Whether a file with these tensor names is of this format."""
        names = list(names)
        return all(any(name.startswith(part) for name in names) for part in ("pretrained.", "depth_head."))

    @staticmethod
    def to_ours(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """
        Args:
            tensors: by official names.

        Returns:
            The same tensors by our names; a name of another format stays as it is.
        """
        return {_to_ours(name): tensor for name, tensor in tensors.items()}

    @staticmethod
    def from_ours(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """
        Args:
            tensors: a whole ``DepthModel.state_dict()``.

        Returns:
            The same tensors by official names: all that ``load_state_dict(strict=True)`` of the original needs.
        """
        first, second = (f"encoder.blocks.0.mlp.{layer}.weight" for layer in ("fc1", "fc2"))
        gated = tensors[first].shape[0] == 2 * tensors[second].shape[1]
        return {_from_ours(name, gated): tensor for name, tensor in tensors.items()}

    @staticmethod
    def description(path: Path, source: str, metadata: Mapping[str, object], sha256: str) -> Description:
        """What our export wrote next to it; another program's file of that name says nothing."""
        sidecar = path.with_suffix(".json")
        content = read_json(sidecar, "Export the weights next to it again, or remove this file")
        return Description(says=content if "kind" in content else {}, file=str(sidecar))


def _to_ours(name: str) -> str:
    for ours, theirs in PREFIXES:
        if name.startswith(theirs):
            name = ours + name.removeprefix(theirs)
            break
    for ours, theirs in GATED:
        name = name.replace(theirs, ours)
    return name


def _from_ours(name: str, gated: bool) -> str:
    for ours, theirs in PREFIXES:
        if name.startswith(ours):
            name = theirs + name.removeprefix(ours)
            break
    for ours, theirs in GATED if gated else ():
        name = name.replace(ours, theirs)
    return name
