"""The weights files that a run leaves behind: ``best/`` and ``last/``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from finetune.models.checkpoints.save import save_adapter, save_native
from finetune.models.depth_model import DepthModel
from finetune.models.lora import adapter_tensors, lora_config, merge_adapters
from finetune.recipe.run_dir import ADAPTER_FOLDER
from finetune.recipe.schema import ModelOptions
from finetune.utils.paths import expand_path, path_exists


@dataclass(frozen=True, kw_only=True)
class WeightsWriter:
    """
    Attributes:
        options: of the recipe.
        network: what is saved, as it is when it is saved: the average where the run has one.
        metadata: what every weights file of this run says of itself.
        writes: True in the main process.
    """

    options: ModelOptions
    network: DepthModel
    metadata: Mapping[str, object]
    writes: bool

    def write(self, path: Path, step: int, evaluation: Mapping[str, object]) -> None:
        """Write a weights file that says what it is and how it scored."""
        if not self.writes:
            return
        path.parent.mkdir(exist_ok=True)
        metadata = {**self.metadata, "step": step, "evaluation": dict(evaluation)}
        if self.options.train != "lora":
            save_native(path, self.network, metadata)
            return
        # The adapter first: where the merged weights exist, the adapter that belongs to them does too.
        self._write_adapter(path.with_name(ADAPTER_FOLDER), metadata)
        save_native(path, merge_adapters(self.network), metadata)

    def _write_adapter(self, folder: Path, metadata: dict[str, object]) -> None:
        config = lora_config(len(self.network.encoder.blocks), **vars(self.options.lora)).to_dict()
        base = self.options.checkpoint
        assert base is not None, "adapters are saved next to the weights of a checkpoint"
        # A path is written whole: the folder will be read from elsewhere.
        file = expand_path(base)
        named = str(file.absolute()) if path_exists(file) else base
        config |= {"base_model_name_or_path": named, "inference_mode": True}
        save_adapter(folder, adapter_tensors(self.network), config, self.network, metadata)
