"""The folder that is prepared: whether it may be made, and its files of text."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path

from finetune.prepare.frame_record import FrameRecord
from finetune.prepare.naming import name_frames
from finetune.prepare.preview import render_preview
from finetune.prepare.recipe_text import format_recipe
from finetune.prepare.recording import FrameKey
from finetune.prepare.summary import PreparedFrames
from finetune.utils.errors import FileFault
from finetune.utils.files import write_file
from finetune.utils.paths import is_file, is_folder, list_folder, path_exists

# A scheme has two letters or more: C:/ is a disk of Windows. pathlib makes one slash of two.
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
SUMMARY, RECIPE, PREVIEW, INTRINSICS = "prepare.json", "recipe.yaml", "preview.html", "intrinsics.json"
TRAIN, VAL, POSES, FACTS = "train.txt", "val.txt", "poses", "frames.csv"


def require_output(output: Path, *, overwrite: bool, mark: str = SUMMARY, command: str = "finetune prepare") -> None:
    """
    Args:
        output: the folder to make.
        overwrite: a folder that the command made may be replaced.
        mark: a file by which such a folder is known.
        command: for the error.

    Raises:
        FileFault: something is there, and it may not be replaced.
    """
    if _URL.match(str(output)):
        raise FileFault(output, "is a URL", "Name a local folder as --output, and copy it where it shall be")
    if not path_exists(output) or (is_folder(output) and not list_folder(output)):
        return
    if not is_folder(output):
        raise FileFault(output, "is a file", "Name a folder as --output")
    if not is_file(output / mark):
        found = f"exists and holds files that {command} did not write"
        raise FileFault(output, found, "Name another folder as --output")
    if not overwrite:
        raise FileFault(output, "exists", "Name another folder as --output, or add --overwrite to replace it")


def write_texts(folder: Path, prepared: PreparedFrames) -> None:
    """
    Write the lists, the poses, the intrinsics, the recipe, the summary and the page.

    Raises:
        OSError: one cannot be written.
    """
    for name, chosen in ((TRAIN, prepared.split.train), (VAL, prepared.split.val)):
        records = [prepared.records[i] for i in chosen]
        lines = (" ".join(filter(None, (record.image, record.depth, record.confidence))) for record in records)
        write_file(folder / name, "".join(f"{line}\n" for line in lines))
    # Two recordings whose names have no ASCII letter would be one file.
    names = name_frames([FrameKey(recording="", stem=recording) for recording in prepared.poses])
    for name, text in zip(names, prepared.poses.values(), strict=True):
        write_file(folder / POSES / f"{name}.txt", text)
    if any(record.facts for record in prepared.records):
        write_file(folder / FACTS, _format_facts(prepared.records))
    if prepared.has_cameras:
        write_file(folder / INTRINSICS, json.dumps(_list_cameras(prepared.records), indent=1) + "\n")
    write_file(folder / RECIPE, format_recipe(prepared, intrinsics=INTRINSICS if prepared.has_cameras else None))
    write_file(folder / SUMMARY, json.dumps(_summarize(prepared), indent=1) + "\n")
    write_file(folder / PREVIEW, render_preview(folder, prepared))


def _format_facts(records: Sequence[FrameRecord]) -> str:
    """CSV: a line for each frame with its image and its facts."""
    names = list(dict.fromkeys(name for record in records for name in record.facts or {}))
    table = io.StringIO()
    rows = csv.writer(table, lineterminator="\n")
    rows.writerow(["image", *names])
    rows.writerows([record.image, *((record.facts or {}).get(name, "") for name in names)] for record in records)
    return table.getvalue()


def _list_cameras(records: Sequence[FrameRecord]) -> dict[str, object]:
    """The one camera of all images, or that of each by its path."""
    cameras = {record.image: _describe_camera(record) for record in records}
    first, *others = cameras.values()
    return first if all(camera == first for camera in others) else dict(cameras)


def _describe_camera(record: FrameRecord) -> dict[str, object]:
    assert record.camera is not None, "asked for where all are known"
    height, width = record.size
    return {"width": width, "height": height, **dict(zip(("fx", "fy", "cx", "cy"), record.camera, strict=True))}


def _summarize(prepared: PreparedFrames) -> dict[str, object]:
    """All that is known of the folder, as JSON."""
    split = prepared.split
    part = dict.fromkeys(split.train, "train") | dict.fromkeys(split.val, "train, val" if split.is_shared else "val")
    return {
        "request": dict(prepared.request),
        "meters_per_unit": prepared.unit,
        "invalid": [0],
        "rounding_m": 0.0 if prepared.is_exact else prepared.unit / 2,
        "near_m": prepared.near_m,
        "far_m": prepared.far_m,
        "percentiles_m": {name: prepared.percentile_m(share) for name, share in _PERCENTILES.items()},
        "labeled_share": prepared.labeled_share,
        "split": prepared.split.rule,
        "left_out": {reason: list(frames) for reason, frames in prepared.left_out.items()},
        "notes": list(prepared.notes),
        "frames": [
            {
                "image": record.image,
                "depth": record.depth,
                "source": record.source,
                "recording": key.recording,
                "time_s": key.time_s,
                "part": part.get(i, "gap"),
                "labeled_share": record.labeled_share,
                "near_m": record.near_m,
                "far_m": record.far_m,
            }
            for i, (record, key) in enumerate(zip(prepared.records, prepared.keys, strict=True))
        ],
    }


_PERCENTILES = {"1": 0.01, "50": 0.5, "95": 0.95, "99.5": 0.995}
