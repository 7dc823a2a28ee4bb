"""The folder of adapters that a run with ``train: lora`` keeps beside its weights, for peft and for our own loader."""

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
    """``adapter_config.json`` and ``adapter_model.safetensors``: adapters, and decoder and head in full.

    peft loads it over the base by ``PeftModel.from_pretrained(network, folder)``, our loader by its path alone.
    """

    suffix = ""
    limit = 1e-4

    def require_writable(self, max_depth_m: float | None, *, adapters: bool | None = None) -> None:
        """Only a run that trains adapters has any."""
        if adapters is False:
            raise FinetuneError(
                "format adapter is of runs with model.train: lora, and this one trains the weights themselves. Set "
                "model.train: lora, or take adapter out of export."
            )

    def targets(self, output: Path) -> list[Path]:
        """The folder."""
        return [output]

    def write(self, predictor: Predictor, output: Path) -> None:
        """A copy of what the run wrote; from merged weights alone adapters cannot be told."""
        from finetune.models.checkpoints.files import find_file
        from finetune.recipe.run_dir import ADAPTER_FOLDER

        weights = find_file(predictor.source)
        of_run = weights.name == "model.safetensors"  # what stands beside another file need not belong to it
        folder = weights.parent if weights.name == WEIGHTS_FILE else weights.parent / ADAPTER_FOLDER
        if not is_file(folder / WEIGHTS_FILE) or not (of_run or folder == weights.parent):
            raise CheckpointError(
                predictor.source,
                f"has no {ADAPTER_FOLDER}/ beside its weights, and adapters cannot be told from merged weights",
                "Name the folder of a run with model.train: lora, or export to official or huggingface",
            )
        shutil.copytree(folder, output)

    def read(self, output: Path, device: str) -> PredictImage:
        """Through our loader, over the base that the folder names."""
        from finetune.inference.predictor import load_model

        return load_model(output, device).predict
