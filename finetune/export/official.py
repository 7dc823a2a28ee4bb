"""Write an official Depth Anything V2 weights file, with a description next to it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from finetune.export.base import Exporter, PredictImage
from finetune.export.folding import FOR_CAMERA
from finetune.export.model_card import published_source
from finetune.models.checkpoints.official import Official as OfficialNames
from finetune.models.encoder_specs import ENCODERS, GRID, ORIGINAL_OFFSET, PATCH
from finetune.utils.errors import FinetuneError

if TYPE_CHECKING:
    from torch import Tensor

    from finetune.inference.predictor import Predictor

POSITIONS = "encoder.pos_embed"

# The metadata of a weights file that is copied to the description.
CARRIED = ("name", FOR_CAMERA, "evaluation", "recipe_sha256")


class Official(Exporter):
    """A plain ``.pth`` state dict that ``load_state_dict(strict=True)`` of the original network takes.

    The file has no metadata, so ``<name>.json`` next to it describes the model; our own loader reads it. Build the
    original network with ``DepthAnythingV2(**content["network"])``; in the metric package add
    ``max_depth=max_depth_m``.
    """

    suffix = ".pth"
    limit = 1e-4

    def require_positions(self, source: str, position_offset: float, network_size: tuple[int, int]) -> None:
        """The original has an embedding of one size, which cannot be refitted to a larger one."""
        if position_offset != ORIGINAL_OFFSET and max(network_size) > GRID * PATCH:
            raise FinetuneError(
                f"{source}: samples its position embedding as transformers does, so the original can make the same "
                f"predictions up to {GRID * PATCH}x{GRID * PATCH} only; here the network input is "
                f"{network_size[0]}x{network_size[1]}. Export it to huggingface."
            )

    def targets(self, output: Path) -> list[Path]:
        """The description and the weights."""
        return [output.with_suffix(".json"), output]

    def write(self, predictor: Predictor, output: Path) -> None:
        """Write all tensors by their official names, as float32 or float16, and the description."""
        import torch

        dtype = torch.float16 if self.options.half else torch.float32
        state = predictor.network.state_dict()
        state[POSITIONS] = self._refit_positions(predictor, state[POSITIONS])
        tensors = OfficialNames.from_ours(state)
        with output.open("wb") as file:
            torch.save({name: tensor.to("cpu", dtype).contiguous() for name, tensor in tensors.items()}, file)
        # The original always samples positions with its own offset, whatever the model was trained with.
        text = json.dumps(describe_model(predictor) | {"position_offset": ORIGINAL_OFFSET}, indent=2)
        output.with_suffix(".json").write_text(text + "\n", encoding="utf-8")

    def read(self, output: Path, device: str) -> PredictImage:
        """Load both files with our loader, without any options."""
        from finetune.inference.predictor import load_model

        return load_model(output, device).predict

    def _refit_positions(self, predictor: Predictor, stored: Tensor) -> Tensor:
        """
        The position embedding with which the original makes our prediction for images of ``image_size``.

        Raises:
            FinetuneError: there is none of the original's size.
        """
        from finetune.models.position_embedding import refitted_positions

        height, width = predictor.preprocessing.network_size(*self.options.image_size)
        offset = predictor.network.position_offset
        self.require_positions(predictor.source, offset, (height, width))
        return refitted_positions(stored, height // PATCH, width // PATCH, offset=offset, other=ORIGINAL_OFFSET)


def describe_model(predictor: Predictor) -> dict[str, object]:
    """
    Returns:
        Plain values: ``kind``, ``encoder``, ``max_depth_m`` (None for relative), ``preprocessing``, ``network`` (what
        the original's constructor takes), ``backbone`` (sizes that the original knows by the encoder's name, but not
        those of ``tiny``), ``base`` with its license, and metadata of the weights file.
    """
    network = predictor.network
    spec = ENCODERS[network.encoder_name]
    sizes = asdict(spec) | {"out_indices": spec.out_indices_of(network.version)}
    of_decoder = {name: sizes.pop(name) for name in ("features", "out_channels")}
    return {
        "format": "official",
        "kind": network.kind,
        "encoder": network.encoder_name,
        "max_depth_m": network.max_depth_m,
        "checkpoint_version": network.version,
        "position_offset": network.position_offset,
        "preprocessing": predictor.preprocessing.to_mapping(),
        "network": {"encoder": network.encoder_name, **of_decoder},
        "backbone": sizes,
        "base": {**predictor.base, "source": published_source(predictor.base.get("source"))},
        **({} if network.camera is None else {"camera": network.camera.to_mapping()}),
        **{name: predictor.metadata[name] for name in CARRIED if name in predictor.metadata},
    }
