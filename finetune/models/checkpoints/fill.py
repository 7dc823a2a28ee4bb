"""Copies the weights of a checkpoint into a network and counts them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from finetune.models.checkpoints.load import Checkpoint
from finetune.models.depth_model import UNUSED_UNIT, DepthModel
from finetune.utils.errors import CheckpointError

LAST_LAYER = "head.last."
# The network never reads these; a file without them is complete.
UNUSED = ("encoder.mask_token", f"{UNUSED_UNIT}.")


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """How many of the network's tensors a checkpoint filled; as text it is one line."""

    encoder: tuple[int, int]
    decoder: tuple[int, int]
    new: dict[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        parts = [f"{part} {filled}/{total}" for part, (filled, total) in self._counts() if part not in self.new]
        return ", ".join(parts + [f"{part} new ({count})" for part, count in self.new.items()])

    def _counts(self) -> list[tuple[str, tuple[int, int]]]:
        return [("encoder", self.encoder), ("decoder", self.decoder)]


def whole_network(checkpoint: Checkpoint) -> DepthModel:
    """
    Returns:
        The network of a checkpoint with all its weights, on the CPU, in evaluation mode.

    Raises:
        CheckpointError: the checkpoint does not cover the network.
    """
    if not checkpoint.has_head:
        raise CheckpointError(
            checkpoint.source,
            "is an encoder without a decoder, which gives no depth",
            "Train one on it first: model.checkpoint with model.decoder_init: scratch",
        )
    network = DepthModel(
        checkpoint.encoder,
        checkpoint.max_depth_m,
        version=checkpoint.version,
        position_offset=checkpoint.position_offset,
        camera=checkpoint.camera,
        activation=checkpoint.activation,
    )
    fill(network, checkpoint, "all")
    # As in training: some processors round convolutions differently in another layout, and the table of a run would
    # differ from its own validations in the last digits.
    network.to(memory_format=torch.channels_last)
    return network.eval()


def fill(model: DepthModel, checkpoint: Checkpoint, parts: str) -> Coverage:
    """
    Args:
        model: its tensors are overwritten where ``parts`` says so; the others stay as they are.
        checkpoint: of the same encoder.
        parts: ``all``, ``encoder``, or ``all_but_last`` (not the last layer of the head).

    Returns:
        The counts of tensors; decoder and head count together.

    Raises:
        CheckpointError: a tensor of these parts is missing, unknown, of another shape, or not finite.
    """
    wanted = _WANTED[parts]
    targets = model.state_dict()
    filling = {name: tensor for name, tensor in checkpoint.tensors.items() if wanted(name)}
    missing = [n for n in targets if wanted(n) and n not in filling and not n.startswith(UNUSED)]
    unknown = [name for name in filling if name not in targets]
    other_shapes = [
        f"{name} is {_shape_text(tensor)} instead of {_shape_text(targets[name])}"
        for name, tensor in filling.items()
        if name in targets and tensor.shape != targets[name].shape
    ]
    for what, names in (("lacks", missing), ("has another shape:", other_shapes), ("has unknown tensors:", unknown)):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise CheckpointError(
                checkpoint.source,
                f"{what} {', '.join(names[:3])}{more} for encoder {model.encoder_name}",
                "Use a whole checkpoint of this encoder",
            )
    _require_finite_weights(filling, checkpoint.source)
    with torch.no_grad():
        for name, target in targets.items():
            if name in filling:
                target.copy_(filling[name])
            elif wanted(name):
                target.zero_()
    return _coverage(targets, filling, parts)


def _require_finite_weights(tensors: Mapping[str, Tensor], source: str) -> None:
    for name, tensor in tensors.items():
        if not name.startswith(UNUSED) and not tensor.isfinite().all():
            raise CheckpointError(
                source,
                f"{name} holds NaN or infinity, so no prediction could be trusted",
                "Use weights from before they diverged, or fetch it again",
            )


_WANTED: dict[str, Callable[[str], bool]] = {
    "all": lambda name: True,
    "encoder": lambda name: name.startswith("encoder."),
    "all_but_last": lambda name: not name.startswith(LAST_LAYER),
}


def _coverage(targets: Mapping[str, Tensor], filled: Mapping[str, Tensor], parts: str) -> Coverage:
    in_encoder = [name in filled for name in targets if name.startswith("encoder.")]
    in_decoder = [name in filled for name in targets if not name.startswith("encoder.")]
    last = sum(name.startswith(LAST_LAYER) for name in targets)
    new = {"all": {}, "encoder": {"decoder": len(in_decoder)}, "all_but_last": {"last layer": last}}
    return Coverage(
        encoder=(sum(in_encoder), len(in_encoder)), decoder=(sum(in_decoder), len(in_decoder)), new=new[parts]
    )


def _shape_text(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a single number"
