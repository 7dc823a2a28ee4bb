"""Copy the adapters that a run with ``train: lora`` keeps next to its weights, for peft and for our own loader."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from finetune.export.base import Exporter, PredictImage
from finetune.models.checkpoints.adapter import WEIGHTS_FILE
from finetune.utils.errors import CheckpointError, FinetuneError
from finetune.utils.paths import is_file

if TYPE_CHECKING:
    from finetune.inference.predictor import Predictor


class Adapter(Exporter):
    """``adapter_config.json`` and ``adapter_model.safetensors``: the adapters, and the whole decoder and head.

    peft loads it over the base with ``PeftModel.from_pretrained(network, folder)``, our loader with the path alone.
    """

    suffix = ""
    limit = 1e-4
    holds_camera = True
    holds_exponential = True
    precisions = ("float32",)

    def require_writable(self, max_depth_m: float | None, *, adapters: bool | None = None) -> None:
        """Only runs that train adapters have any."""
        if adapters is False:
            raise FinetuneError(
                "format adapter is for runs with model.train: lora, and this run trains the weights themselves. Set "
                "model.train: lora, or remove adapter from export."
            )

    def targets(self, output: Path) -> list[Path]:
        """The folder."""
        return [output]

    def write(self, predictor: Predictor, output: Path) -> None:
        """Copy what the run wrote. Adapters cannot be recovered from merged weights."""
        from finetune.models.checkpoints.files import find_file
        from finetune.recipe.run_dir import ADAPTER_FOLDER

        weights = find_file(predictor.source)
        of_run = weights.name == "model.safetensors"  # adapters next to another file may belong to another model
        folder = weights.parent if weights.name == WEIGHTS_FILE else weights.parent / ADAPTER_FOLDER
        if not is_file(folder / WEIGHTS_FILE) or not (of_run or folder == weights.parent):
            raise CheckpointError(
                predictor.source,
                f"has no {ADAPTER_FOLDER}/ next to its weights, and adapters cannot be recovered from merged weights",
                "Name the folder of a run with model.train: lora, or export to official or huggingface",
            )
        shutil.copytree(folder, output)

    def read(self, output: Path, device: str) -> PredictImage:
        """Load it with our loader, over the base that the folder names."""
        from finetune.inference.predictor import load_model

        loaded = load_model(output, device)
        focal_px = loaded.canonical.focal_px if loaded.canonical else None
        return lambda image: loaded.predict_at(image, focal_px)
