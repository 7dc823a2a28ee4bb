"""The official Depth Anything V2 weights file, with a description beside it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.checkpoints.official import Official as OfficialNames
from finetune.exporters.exporter import Answer, Exporter
from finetune.networks.encoder_specs import ENCODERS

if TYPE_CHECKING:
    from finetune.predictor import Predictor

# What a weights file says of itself that a user of the exported one wants to know as well.
CARRIED = ("name", "camera", "evaluation", "recipe_sha256")


class Official(Exporter):
    """A plain ``.pth`` state dict that ``load_state_dict(strict=True)`` of the original network takes.

    The file cannot say what it is, so ``<name>.json`` beside it does; our own loader reads it. The original network is
    built from it by ``DepthAnythingV2(**content["network"])``, in the metric package with ``max_depth=max_depth_m``.
    """

    suffix = ".pth"
    limit = 1e-4

    def targets(self, output: Path) -> list[Path]:
        """The description and the weights."""
        return [output.with_suffix(".json"), output]

    def write(self, predictor: Predictor, output: Path) -> None:
        """All tensors by official name, float32, and what they are."""
        import torch

        tensors = OfficialNames.from_ours(predictor.network.state_dict())
        with output.open("wb") as file:
            torch.save({name: tensor.float().cpu().contiguous() for name, tensor in tensors.items()}, file)
        text = json.dumps(description(predictor), indent=2)
        output.with_suffix(".json").write_text(text + "\n", encoding="utf-8")

    def read(self, output: Path, device: str) -> Answer:
        """Through our loader, into a fresh network; nothing is told that the two files do not say."""
        from finetune.predictor import load_model

        return load_model(output, device).predict


def description(predictor: Predictor) -> dict[str, Any]:
    """
    Returns:
        Plain values: ``kind``, ``encoder``, ``max_depth_m`` (None for relative), ``preprocessing``, ``network`` (what
        the original's constructor takes), ``backbone`` (sizes that the original knows by the encoder's name, and needs
        to be told for ``tiny``, which it has not), ``base`` with its license, and what the weights file said.
    """
    network = predictor.network
    sizes = asdict(ENCODERS[network.encoder_name])
    of_decoder = {name: sizes.pop(name) for name in ("features", "out_channels")}
    return {
        "format": "official",
        "kind": network.kind,
        "encoder": network.encoder_name,
        "max_depth_m": network.max_depth_m,
        "preprocessing": predictor.preprocessing.to_mapping(),
        "network": {"encoder": network.encoder_name, **of_decoder},
        "backbone": sizes,
        "base": dict(predictor.base),
        **{name: predictor.metadata[name] for name in CARRIED if name in predictor.metadata},
    }
