"""Weights files on disk: which file a path means, and what is in it; nothing in a file is ever run."""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from finetune.checkpoints.hub import HUB_FILES, closest_id
from finetune.errors import CheckpointError


def find_file(source: str) -> Path:
    """The file behind a path, or one sentence about what is there instead."""
    path = Path(source)
    if path.is_dir():
        for candidate in (path / "best" / "model.safetensors", path / "model.safetensors"):
            if candidate.is_file():
                return candidate
        raise CheckpointError(
            source,
            "is a folder without best/model.safetensors",
            "Name a run folder that has scored its weights, or a weights file",
        )
    if path.is_file():
        return path
    closest = closest_id(source)
    fix = (
        f"Did you mean the hub id {closest}" if closest else f"Check the path, or name a hub id: {', '.join(HUB_FILES)}"
    )
    raise CheckpointError(source, "no such file", fix)


def read_file(path: Path, source: str) -> tuple[Mapping[str, Any], dict[str, str]]:
    """Content and metadata, told by the first bytes; nothing in the file is ever run."""
    with path.open("rb") as file:
        start = file.read(512)
    if not start:
        raise CheckpointError(source, "is empty", "Fetch or export it again")
    if start.startswith(b"version https://git-lfs"):
        raise CheckpointError(source, "is a Git LFS pointer, not the weights", "Run git lfs pull where it came from")
    if start.lstrip().lower().startswith((b"<!doctype", b"<html")):
        raise CheckpointError(source, "is a web page, not weights", "Download the file itself, not the page about it")
    if start[8:9] == b"{":
        return _read_safetensors(path, source)
    if start.startswith(b"PK\x03\x04") or start.startswith(b"\x80"):
        return _read_pickle(path, source, mapped=start.startswith(b"PK")), {}
    raise CheckpointError(
        source, "is neither a .pth nor a .safetensors file", "Name a weights file in one of the two formats"
    )


def _read_safetensors(path: Path, source: str) -> tuple[Mapping[str, Any], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, ValueError) as error:
        raise CheckpointError(
            source, f"is cut short or damaged ({_first_line(error)})", "Fetch or export it again"
        ) from error


def _read_pickle(path: Path, source: str, mapped: bool) -> Mapping[str, Any]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            source,
            "holds more than tensors and plain values, or is damaged; opening it could run code, so it stays closed",
            "Write its weights alone: torch.save(model.state_dict(), path)",
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        raise CheckpointError(
            source, f"is cut short or damaged ({_first_line(error)})", "Fetch or export it again"
        ) from error
    if not isinstance(content, Mapping):
        raise CheckpointError(
            source,
            f"holds a {type(content).__name__}, not weights by name",
            "Write its weights: torch.save(model.state_dict(), path)",
        )
    return content


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0].rstrip(". ")


def decoded(text: str) -> Any:
    """A metadata value: JSON in our files, anything in others."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def read_sidecar(sidecar: Path) -> dict[str, Any]:
    """What our export of an official file wrote beside it; empty where there is none."""
    if not sidecar.is_file():
        return {}
    try:
        content = json.loads(sidecar.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(
            sidecar, f"is not JSON ({_first_line(error)})", "Export the weights beside it again, or remove this file"
        ) from error
    return content if isinstance(content, dict) and "kind" in content else {}


def file_digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
