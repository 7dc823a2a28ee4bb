"""Checks that scores and calibration in the metadata of a weights file have the form that we write."""

from __future__ import annotations

import math
from collections.abc import Mapping

from finetune.models.checkpoints.identity import is_depth
from finetune.models.training_camera import is_camera_mapping
from finetune.utils.errors import CheckpointError, shown

_FIX = "Export it again from its run folder, or name weights that were not changed"


def require_sound(says: Mapping[str, object], file: str) -> None:
    """
    Args:
        says: of a ``Description``.
        file: the metadata's file.

    Raises:
        CheckpointError: a value does not have that form.
    """
    expected = {
        "step": ("a count", _is_count),
        "evaluation": ("a protocol and rows of numbers", _is_evaluation),
        "camera": ("mode, focal_px, seen_px, zoom and max_depth_m", _is_camera),
        "calibration": ("a scale, and the max depth and the evaluation before it", _is_calibration),
    }
    for name, (what, holds) in expected.items():
        if name in says and not holds(says[name]):
            raise CheckpointError(file, f"says {name} {shown(says[name])}; expected {what}", _FIX)


def _is_camera(value: object) -> bool:
    # Nothing read the key in files of before, whatever it held.
    return not isinstance(value, Mapping) or is_camera_mapping(value)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_evaluation(value: object) -> bool:
    if isinstance(value, list):
        return all(isinstance(item, Mapping) and _is_evaluation(item) for item in value)
    if value is None or value == {}:
        return True  # last/ is saved before it is scored
    if not isinstance(value, Mapping) or not isinstance(value.get("protocol", {}), Mapping):
        return False
    rows = value.get("rows")
    return isinstance(rows, Mapping) and all(isinstance(row, Mapping) and _is_row(row) for row in rows.values())


def _is_row(row: Mapping[str, object]) -> bool:
    return all(isinstance(name, str) and (value is None or _is_number(value)) for name, value in row.items())


def _is_calibration(value: object) -> bool:
    if not isinstance(value, Mapping):
        return False
    scale = value.get("scale")
    return (
        _is_number(scale)
        and 0 < float(scale or 0) < math.inf
        and is_depth(value.get("original_max_depth_m"))
        and "original_evaluation" in value
        and _is_evaluation(value["original_evaluation"])
    )
