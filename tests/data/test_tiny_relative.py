"""The embedded checkpoint is a run's best weights, in half the bytes, with what they are."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch

from finetune.data.preprocessing import Preprocessing
from finetune.models.checkpoints.fill import whole_network
from finetune.models.checkpoints.load import read_checkpoint
from finetune.models.checkpoints.save import save_native
from tests.drawn_weights import drawn_model

ROOT = Path(__file__).resolve().parents[2]


def test_best_weights_are_kept_in_float16_with_license_and_evaluation(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("tiny_relative", ROOT / "data" / "tiny_relative.py")
    assert spec is not None and spec.loader is not None
    keep = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(keep)
    run, kept = tmp_path / "run", tmp_path / "kept.safetensors"
    metadata = {
        "preprocessing": Preprocessing(input_size=(84, 112), orientation="stored").to_mapping(),
        "base": {"source": None, "sha256": None, "license": None},
        "evaluation": {"rows": {}},
        "step": 7,
    }
    save_native(run / "best" / "model.safetensors", drawn_model("tiny", None), metadata)
    assert keep.main([str(run), "--output", str(kept)]) == 0
    checkpoint = read_checkpoint(str(kept))
    assert (checkpoint.kind, checkpoint.encoder, checkpoint.license) == ("relative", "tiny", "Apache-2.0")
    assert checkpoint.metadata["step"] == 7 and checkpoint.metadata["evaluation"] == {"rows": {}}
    assert checkpoint.metadata["preprocessing"] == metadata["preprocessing"]
    assert kept.stat().st_size < 0.55 * (run / "best" / "model.safetensors").stat().st_size
    before = whole_network(read_checkpoint(str(run))).state_dict()
    for name, tensor in whole_network(checkpoint).state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=1e-3, atol=1e-6)
