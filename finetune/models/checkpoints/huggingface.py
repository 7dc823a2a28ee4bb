"""Depth Anything as transformers stores it: a folder with ``config.json`` and the weights."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from finetune.models.checkpoints.format import Description, Format
from finetune.models.checkpoints.sidecar import read_json
from finetune.models.encoder_specs import ENCODERS, GRID, PATCH, TRANSFORMERS_OFFSET
from finetune.utils.errors import CheckpointError, first_line
from finetune.utils.paths import is_file, missing

if TYPE_CHECKING:
    from torch import Tensor

CONFIG_FILE, PROCESSOR_FILE = "config.json", "preprocessor_config.json"
# Our export writes these next to the weights: what they are, and the position embedding as it was trained.
OURS_FILE, POSITIONS_FILE = "finetune.json", "finetune_positions.safetensors"
POSITIONS = "encoder.pos_embed"

# Ours, theirs. Their fusion layers run from the deepest scale, our fuse.3, to the finest.
PREFIXES = (
    ("encoder.cls_token", "backbone.embeddings.cls_token"),
    ("encoder.mask_token", "backbone.embeddings.mask_token"),
    (POSITIONS, "backbone.embeddings.position_embeddings"),
    ("encoder.patch_embed.proj.", "backbone.embeddings.patch_embeddings.projection."),
    ("encoder.norm.", "backbone.layernorm."),
    *((f"decoder.project.{n}.", f"neck.reassemble_stage.layers.{n}.projection.") for n in range(4)),
    *((f"decoder.resize.{n}.", f"neck.reassemble_stage.layers.{n}.resize.") for n in range(4)),
    *((f"decoder.reduce.{n}.", f"neck.convs.{n}.") for n in range(4)),
    *(
        (f"decoder.fuse.{n}.{ours}", f"neck.fusion_stage.layers.{3 - n}.{theirs}")
        for n in range(4)
        for ours, theirs in (
            ("skip_unit.conv", "residual_layer1.convolution"),
            ("unit.conv", "residual_layer2.convolution"),
            ("out.", "projection."),
        )
    ),
    ("head.reduce.", "head.conv1."),
    ("head.refine.", "head.conv2."),
    ("head.last.", "head.conv3."),
)
# Parts of a block: ours, the hub's, then the name in the memory of transformers 5 where that differs.
IN_BLOCK: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("attn.proj.", ("attention.output.dense.", "attention.o_proj.")),
    ("mlp.fc1.", ("mlp.fc1.", "mlp.weights_in.")),
    ("mlp.fc2.", ("mlp.fc2.", "mlp.weights_out.", "mlp.down_proj.")),
    ("ls1.gamma", ("layer_scale1.lambda1",)),
    ("ls2.gamma", ("layer_scale2.lambda1",)),
    ("norm1.", ("norm1.",)),
    ("norm2.", ("norm2.",)),
)
# Ours, and the parts of theirs that are joined to it in this order, along the first side.
FUSED: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("attn.qkv.", ("attention.attention.query.", "attention.attention.key.", "attention.attention.value.")),
    ("attn.qkv.", ("attention.q_proj.", "attention.k_proj.", "attention.v_proj.")),
    ("mlp.fc1.", ("mlp.gate_proj.", "mlp.up_proj.")),
)
_BLOCK, _THEIR_BLOCK = re.compile(r"encoder\.blocks\.(\d+)\."), re.compile(r"backbone\.encoder\.layer\.(\d+)\.")
# What config.json may say about the network; another value would be another network.
_OF_MODEL = {"reassemble_factors": [4, 2, 1, 0.5], "head_in_index": -1, "patch_size": PATCH}
_OF_BACKBONE = {
    "model_type": "dinov2",
    "image_size": GRID * PATCH,
    "patch_size": PATCH,
    "layer_norm_eps": 1e-6,
    "qkv_bias": True,
    "apply_layernorm": True,
}
_DEFAULT_IMAGE_SIZE = 224  # Dinov2Config's default, where config.json leaves it out


class HuggingFace(Format):
    """``model.safetensors`` or ``pytorch_model.bin``, by the hub's names or by those of transformers 5 in memory."""

    files = ("model.safetensors", "pytorch_model.bin")

    @staticmethod
    def recognises(names: Iterable[str], metadata: Mapping[str, object]) -> bool:
        """Whether a file with these tensor names is of this format."""
        names = list(names)
        return all(any(name.startswith(part) for name in names) for part in ("backbone.", "neck.", "head."))

    @staticmethod
    def to_ours(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Renamed; query, key and value fused into one, as are the two halves of a gated layer."""
        import torch

        left = dict(tensors)
        ours: dict[str, Tensor] = {}
        for name in tensors:
            block = _THEIR_BLOCK.match(name)
            part = name[block.end() :] if block else ""
            for fused, (first, *others) in FUSED if block else ():
                names = [name, *(name.replace(first, other) for other in others)]
                if part.startswith(first) and all(each in left for each in names):
                    whole = torch.cat([left.pop(each) for each in names])
                    ours[_in_our_block(block, fused + part.removeprefix(first))] = whole
        return ours | {_to_ours(name): tensor for name, tensor in left.items()}

    @staticmethod
    def from_ours(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """By the hub's names, which every version of transformers reads; query, key and value split."""
        first, second = (tensors[f"encoder.blocks.0.mlp.{layer}.weight"] for layer in ("fc1", "fc2"))
        gated = first.shape[0] == 2 * second.shape[1]
        theirs: dict[str, Tensor] = {}
        for name, tensor in tensors.items():
            block = _BLOCK.match(name)
            if block and ".attn.qkv." in name:
                _, parts = FUSED[0]
                kind = name.rpartition(".")[2]
                for part, values in zip(parts, tensor.chunk(3), strict=True):
                    theirs[f"backbone.encoder.layer.{block[1]}.{part}{kind}"] = values
            else:
                theirs[_from_ours(name, gated)] = tensor
        return theirs

    @staticmethod
    def description(path: Path, source: str, metadata: Mapping[str, object], sha256: str) -> Description:
        """What ``config.json`` says; for an unchanged export of ours, what we wrote next to it."""
        retry = "Export or fetch the folder again"
        ours = read_json(path.with_name(OURS_FILE), retry)
        stale: tuple[str, ...] = ()
        if ours and ours.get("weights_sha256") == sha256:
            tensors = _trained_positions(path.with_name(POSITIONS_FILE), ours)
            return Description(says=ours, file=str(path.with_name(OURS_FILE)), tensors=tensors)
        if ours:
            stale = (f"{path.with_name(OURS_FILE)} is about other weights than {path.name}: ignored",)
        config_file = path.with_name(CONFIG_FILE)
        config = read_json(config_file, retry)
        processor = _of_processor(read_json(path.with_name(PROCESSOR_FILE), retry))
        if not config:
            says = {"position_offset": TRANSFORMERS_OFFSET} | processor
            return Description(says=says, file=str(config_file), notes=stale)
        says, notes = _of_config(config, config_file)
        says |= processor
        return Description(says=says, file=str(config_file), notes=stale + notes)


def _to_ours(name: str) -> str:
    block = _THEIR_BLOCK.match(name)
    if block:
        part = name[block.end() :]
        for ours, theirs in IN_BLOCK:
            for their in theirs:
                if part.startswith(their):
                    return _in_our_block(block, ours + part.removeprefix(their))
        return name
    for ours, their in PREFIXES:
        if name.startswith(their):
            return ours + name.removeprefix(their)
    return name


def _in_our_block(block: re.Match[str] | None, part: str) -> str:
    assert block is not None
    return f"encoder.blocks.{block[1]}.{part}"


def _from_ours(name: str, gated: bool) -> str:
    block = _BLOCK.match(name)
    if block:
        part = name[block.end() :]
        ours, theirs = next((ours, theirs) for ours, theirs in IN_BLOCK if part.startswith(ours))
        their = theirs[1] if gated and ours.startswith("mlp.") else theirs[0]
        return f"backbone.encoder.layer.{block[1]}.{their}{part.removeprefix(ours)}"
    ours, their = next((ours, their) for ours, their in PREFIXES if name.startswith(ours))
    return their + name.removeprefix(ours)


def _trained_positions(path: Path, ours: Mapping[str, object]) -> dict[str, Tensor]:
    """The position embedding before it was fitted to how transformers samples it."""
    if not ours.get("positions_fitted_to"):
        return {}
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    again = f"Export the folder again, or remove {OURS_FILE} to read it as transformers does"
    if not is_file(path):
        raise CheckpointError(
            path, f"{missing(path)}, and the weights next to it hold a position embedding fitted to one size", again
        )
    try:
        found = dict(load_file(path))
    except (SafetensorError, OSError, ValueError, LookupError) as error:
        raise CheckpointError(path, f"is cut short or damaged ({first_line(error)})", again) from error
    if set(found) != {POSITIONS}:
        raise CheckpointError(path, f"holds {', '.join(found) or 'nothing'} instead of {POSITIONS}", again)
    return found


def _of_config(config: Mapping[str, Any], file: Path) -> tuple[dict[str, object], tuple[str, ...]]:
    """
    Returns:
        Kind, max depth, version and offset by our names; and a note where transformers assumes a value.

    Raises:
        CheckpointError: it is the configuration of another network.
    """
    backbone = config.get("backbone_config")
    backbone = backbone if isinstance(backbone, Mapping) else {}
    if config.get("model_type") != "depth_anything":
        raise CheckpointError(
            file, f"model_type is {config.get('model_type')!r}, not 'depth_anything'", "Use a Depth Anything checkpoint"
        )
    for section, expected, prefix in ((config, _OF_MODEL, ""), (backbone, _OF_BACKBONE, "backbone_config.")):
        for key, value in expected.items():
            default = _DEFAULT_IMAGE_SIZE if key == "image_size" and section else value
            if section.get(key, default) != value:
                raise CheckpointError(
                    file,
                    f"{prefix}{key} is {section.get(key, default)!r}, that of Depth Anything is {value!r}",
                    "Use a checkpoint of that network",
                )
    says: dict[str, object] = {
        "kind": config.get("depth_estimation_type", "relative"),
        "checkpoint_version": _version_of(backbone, file),
        "position_offset": TRANSFORMERS_OFFSET,
        "max_depth_m": None,
    }
    if says["kind"] != "metric":
        return says, ()
    says["max_depth_m"] = config.get("max_depth") or 1
    assumed = f"{file} has no max_depth, which transformers takes for 1 m"
    return says, () if config.get("max_depth") else (assumed,)


def _version_of(backbone: Mapping[str, Any], file: Path) -> str:
    """V1 or V2, by the blocks that the decoder reads, which are counted from 1: the embedding is 0."""
    indices = backbone.get("out_indices")
    if indices is None:
        stages = backbone.get("out_features") or ["stage9", "stage10", "stage11", "stage12"]
        indices = [int(re.sub(r"\D", "", str(stage)) or 0) for stage in stages]
    out_indices = tuple(index - 1 if isinstance(index, int) else index for index in indices)
    depth, width = backbone.get("num_hidden_layers", 12), backbone.get("hidden_size", 768)
    spec = next((spec for spec in ENCODERS.values() if (spec.depth, spec.embed_dim) == (depth, width)), None)
    if spec is not None:
        for version in ("v2", "v1"):
            if out_indices == spec.out_indices_of(version):
                return version
    raise CheckpointError(
        file,
        f"backbone_config.out_indices is {list(indices)} of {depth} blocks of width {width}, which neither V1 nor V2 "
        "of Depth Anything reads",
        "Use a Depth Anything checkpoint",
    )


def _of_processor(processor: Mapping[str, Any]) -> dict[str, object]:
    """Our preprocessing with the size and colors of the processor; empty where ours cannot do the same."""
    size = processor.get("size")
    if isinstance(size, Mapping):
        sides = [size.get(side, size.get("shortest_edge")) for side in ("height", "width")]
    else:
        sides = [size, size]
    if not processor.get("do_resize", True) or not all(_is_whole(side) and side % PATCH == 0 for side in sides):
        return {}
    # We scale to 0 to 1 first; without that, a processor's colors are on another scale.
    factor = 255 * processor.get("rescale_factor", 1 / 255) if processor.get("do_rescale", True) else 255.0
    mean, std = processor.get("image_mean"), processor.get("image_std")
    if not processor.get("do_normalize", True):
        mean, std = [0.0] * 3, [1.0] * 3
    if not _are_colors(mean) or not _are_colors(std) or not _are_colors([factor] * 3) or not factor > 0:
        return {}
    scaled = [[value / factor for value in values] if abs(factor - 1) > 1e-9 else values for values in (mean, std)]
    return {"preprocessing": {"input_size": sides, "mean": scaled[0], "std": scaled[1]}}


def _is_whole(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _are_colors(values: object) -> TypeGuard[list[float]]:
    return isinstance(values, list) and len(values) == 3 and all(type(value) in (int, float) for value in values)
