"""The recipe of a prepared folder, which launches as it is."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import finetune
from finetune.models.encoder_specs import PATCH
from finetune.prepare.naming import clean_name
from finetune.prepare.summary import PreparedFrames
from finetune.recipe.schema import MIN_PATCHES
from finetune.recipe.yaml_source import yaml_text
from finetune.utils.paths import is_file, real_path
from finetune.utils.plain import PlainValue
from finetune.utils.text import meters, percent

HUB_ID = "depth-anything/Depth-Anything-V2-Small"
_EMBEDDED = "data/tiny_relative.safetensors"
# Pixels of the network's input: those of room_tiny.yaml for the embedded checkpoint, of realsense_vits_lora.yaml else.
_PIXELS_TINY, _PIXELS = 126 * 168, 392 * 518
# The farthest prediction is the first of these that reaches nearly all depth, meters.
_CEILINGS_M = (
    *(0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 12.0, 15.0, 20.0, 25.0, 30.0, 40.0, 50.0, 60.0, 80.0),
    *(100.0, 120.0, 150.0, 200.0, 250.0, 300.0, 400.0, 500.0, 650.0, 1000.0, 2000.0, 4000.0, 6600.0),
)
_NEARLY_ALL = 0.999
MEASURED = 255  # the confidence of a depth that was measured


def embedded_checkpoint() -> str | None:
    """The small relative checkpoint of the repository; None where only the package is installed."""
    path = real_path(finetune.__file__).parent.parent / _EMBEDDED
    return str(path) if is_file(path) else None


def format_recipe(prepared: PreparedFrames, *, intrinsics: str | None) -> str:
    """
    Args:
        prepared: what is in the folder.
        intrinsics: the file of the cameras below the folder, if there is one.

    Returns:
        The recipe, with comments that say what to change.
    """
    checkpoint = prepared.checkpoint or embedded_checkpoint() or HUB_ID
    tiny = Path(checkpoint).name == Path(_EMBEDDED).name
    frames = {"train": prepared.split.train, "val": prepared.split.val}
    entries: dict[str, PlainValue] = {part: [_describe_entry(prepared, f"{part}.txt", intrinsics)] for part in frames}
    model: PlainValue = {
        "checkpoint": checkpoint,
        "head": "metric",
        "max_depth_m": choose_ceiling(prepared),
        "train": "all",
    }
    data: dict[str, PlainValue] = {"input_size": list(choose_input_size(prepared, tiny)), **entries}
    if prepared.split.is_shared:
        data["val_may_repeat_train"] = True
    sections: tuple[dict[str, PlainValue], ...] = (
        {"name": clean_name(prepared.output.name), "output": "runs", "seed": 0},
        {"model": model},
        {"data": {**data, "workers": 1 if tiny else 4}},
        {"augment": {"flip": 0.5, "color": 0.5}},
        {"loss": _choose_losses(prepared, tiny)},
        {"optim": _choose_rates(tiny)},
        {"run": _choose_steps(tiny)},
        {"evaluation": {"protocols": ["plain"]}},
        {"export": ["official"]},
    )
    return _describe_recipe(prepared, tiny) + "".join(map(yaml_text, sections))


def _describe_recipe(prepared: PreparedFrames, tiny: bool) -> str:
    """The comment above the recipe."""
    path = f"{prepared.output}/recipe.yaml"
    sensor = prepared.request.get("sensor")
    kind = str(prepared.request.get("kind", "")) + (f" --sensor {sensor}" if sensor else "")
    lines = [
        f"Fine-tunes into meters on {len(prepared.split.train)} frames, and validates on {len(prepared.split.val)}: "
        f"{prepared.split.rule}.",
        f"Look at it: finetune check {path}. Launch: accelerate launch finetune/train.py {path}",
        f"Data: {prepared.output}, written by finetune prepare {kind}; depth from "
        f"{meters(prepared.near_m)} to {meters(prepared.far_m)}, measured at {percent(prepared.labeled_share)} of the "
        "pixels.",
        "If the folder is moved, add to each call: data.train.0.root=FOLDER data.val.0.root=FOLDER, or write it below.",
    ]
    if tiny:
        height, width = choose_input_size(prepared, tiny=False)
        lines.append(
            f"For Depth Anything V2: model.checkpoint={HUB_ID} data.input_size=[{height},{width}] optim.lr=5e-6 "
            "optim.lr_decoder=5e-5 run.steps=2000"
        )
    return "".join(f"# {line}\n" for line in lines)


def _describe_entry(prepared: PreparedFrames, name: str, intrinsics: str | None) -> dict[str, PlainValue]:
    entry: dict[str, PlainValue] = {
        "reader": "pairs",
        "root": str(real_path(prepared.output)),
        "list": name,
        "meters_per_unit": prepared.unit,
        "invalid": [0],
    }
    if intrinsics:
        entry["intrinsics"] = intrinsics
    if prepared.is_reduced:
        entry["reduce_image"] = True
    if prepared.has_confidence:
        # Trains on all of it, and validates on what was measured alone.
        entry |= {"mask": "list", "mask_at_least": MEASURED if name == "val.txt" else 1}
    return {**entry, **cast(Mapping[str, PlainValue], prepared.recipe_options)}


def choose_ceiling(prepared: PreparedFrames) -> float:
    """The farthest prediction, meters: a round number that reaches 99.9 % of the measured depth."""
    reached_m = prepared.percentile_m(_NEARLY_ALL)
    return next((ceiling for ceiling in _CEILINGS_M if ceiling >= reached_m), reached_m)


def choose_input_size(prepared: PreparedFrames, tiny: bool) -> tuple[int, int]:
    """(height, width) in multiples of 14, of the shape of most images and at most their size."""
    ((height, width), _), *_ = Counter(record.size for record in prepared.records).most_common(1)
    scale = min(1.0, math.sqrt((_PIXELS_TINY if tiny else _PIXELS) / (height * width)))
    rows, columns = (max(MIN_PATCHES, round(side * scale / PATCH)) * PATCH for side in (height, width))
    return rows, columns


def _choose_losses(prepared: PreparedFrames, tiny: bool) -> list[PlainValue]:
    dense: list[PlainValue] = [] if prepared.is_sparse else [{"kind": "gradient", "weight": 0.3}]
    if not tiny:
        return [{"kind": "silog", "lam": 0.5}, {"kind": "l1", "weight": 0.1}]
    # The embedded checkpoint knows shapes already, so silog forgives little of an error of scale.
    return [{"kind": "silog", "weight": 1.0, "lam": 0.15}, {"kind": "log_l1", "weight": 0.5}, *dense]


def _choose_rates(tiny: bool) -> dict[str, PlainValue]:
    if tiny:
        return {"lr": 1.0e-4, "lr_decoder": 3.0e-4, "ema_decay": 0.98}
    return {"lr": 5.0e-6, "lr_decoder": 5.0e-5}


def _choose_steps(tiny: bool) -> dict[str, PlainValue]:
    steps, batch = (400, 4) if tiny else (2000, 8)
    return {
        "steps": steps,
        "batch_size": batch,
        "log_every_steps": 10,
        "evaluate_every_steps": steps // 8,
        "save_every_steps": steps // 4,
    }
