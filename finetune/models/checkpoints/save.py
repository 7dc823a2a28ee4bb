"""Weights files of our own: whole networks and adapters, with all that describes them."""

from __future__ import annotations

import json
import stat
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from finetune.models.checkpoints.adapter import CONFIG_FILE, WEIGHTS_FILE, config_text
from finetune.models.checkpoints.adapter import FORMAT as ADAPTER_FORMAT
from finetune.models.checkpoints.native import FORMAT, VERSION, Native
from finetune.models.depth_model import DepthModel
from finetune.utils.files import atomic_write, write_file


def save_native(path: Path, model: DepthModel, metadata: Mapping[str, object], half: bool = False) -> None:
    """
    Write the network as one self-describing file, whole or not at all.

    Args:
        path: ``model.safetensors``; its folder is made if it is missing.
        model: its kind, encoder, max depth and camera become part of the metadata.
        metadata: plain values; by convention ``preprocessing``, ``base`` (source, sha256, license), ``recipe_sha256``
            and ``evaluation``.
        half: store float16, which is read as float32 again; the metadata says so.
    """
    dtype = torch.float16 if half else torch.float32
    tensors = {
        name: tensor.detach().to("cpu", dtype).contiguous()
        for name, tensor in Native.from_ours(model.state_dict()).items()
    }
    stored_as = "float16" if half else "float32"
    _write_safetensors(path, tensors, _described(model, metadata, FORMAT) | {"stored_as": stored_as})


def save_adapter(
    folder: Path,
    tensors: Mapping[str, Tensor],
    config: Mapping[str, object],
    model: DepthModel,
    metadata: Mapping[str, object],
) -> None:
    """
    Write a folder that peft loads, and so does our own loader with the base that it names, whole or not at all.

    Args:
        folder: replaced if it exists.
        tensors: by peft's names.
        config: of ``adapter_config.json``; ``base_model_name_or_path`` names the base.
        model: its kind, encoder and max depth become part of the metadata, as in ``save_native``.
        metadata: as in ``save_native``.
    """
    stored = {name: tensor.detach().to("cpu", torch.float32).contiguous() for name, tensor in tensors.items()}
    with atomic_write(folder) as unfinished:
        unfinished.mkdir()
        _write_safetensors(unfinished / WEIGHTS_FILE, stored, _described(model, metadata, ADAPTER_FORMAT))
        write_file(unfinished / CONFIG_FILE, config_text(config))


def _described(model: DepthModel, metadata: Mapping[str, object], format_name: str) -> dict[str, object]:
    camera = {} if model.camera is None else {"camera": model.camera.to_mapping()}
    return {
        **metadata,
        **camera,
        "format": format_name,
        "version": VERSION,
        "kind": model.kind,
        "encoder": model.encoder_name,
        "max_depth_m": model.max_depth_m,
        "activation": model.activation,
        "checkpoint_version": model.version,
        "position_offset": model.position_offset,
    }


def _write_safetensors(path: Path, tensors: Mapping[str, Tensor], described: Mapping[str, object]) -> None:
    # In a folder, because safetensors writes under a random name first: the next write removes what a kill left of it.
    with atomic_write(path, in_folder=True) as unfinished:
        # safetensors creates files with mode 0600; an ordinary file has the mode that the umask asks for.
        unfinished.touch()
        mode = stat.S_IMODE(unfinished.stat().st_mode)
        save_file(tensors, unfinished, {key: json.dumps(value, sort_keys=True) for key, value in described.items()})
        _sort_metadata(unfinished)
        unfinished.chmod(mode)


def _sort_metadata(path: Path) -> None:
    """safetensors writes metadata in an order that differs between processes; the same weights must give one file."""
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        assert len(text) <= length
        file.seek(8)
        file.write(text.ljust(length))
