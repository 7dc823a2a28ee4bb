"""Weights files on disk: which file a path means, and its content; code in a file is never run."""

from __future__ import annotations

import json
import os
import pickle
import warnings
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from finetune.models.checkpoints.archives import inspect_archive
from finetune.models.checkpoints.hub import HUB_FILES, closest_id
from finetune.models.checkpoints.unwrap import Content
from finetune.utils import registry
from finetune.utils.errors import CheckpointError, first_line
from finetune.utils.paths import expand_path, if_closed, is_file, is_folder, list_folder, missing, path_exists

# First bytes of archives that weights are sent in, which we do not unpack.
_ARCHIVES = {
    b"\x1f\x8b": "a gzip archive",
    b"BZh": "a bzip2 archive",
    b"\xfd7zXZ": "an xz archive",
    b"Rar!": "a RAR archive",
    b"7z\xbc\xaf": "a 7z archive",
}
# Models of other programs, by their first bytes, and by the end of their names.
_OTHERS = {b"\x89HDF": "an HDF5 file, such as Keras writes", b"GGUF": "a GGUF file"}
_OTHERS_BY_NAME = {
    ".onnx": "an ONNX file, which runtimes run",
    ".tflite": "a TensorFlow Lite file",
    ".engine": "an engine of TensorRT",
    ".ckpt.index": "a TensorFlow checkpoint",
}
_NAME_WEIGHTS = "Name the run folder, the .pth or the .safetensors file that it was made from"
# What torch.load raises for damaged bytes, besides its own UnpicklingError; found by reading mutated files.
_BROKEN = (
    RuntimeError,
    EOFError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    OSError,
    AssertionError,
    MemoryError,
    OverflowError,
    ImportError,
)


def find_file(source: str) -> Path:
    """The file that a path means, or an error with one sentence about what is there instead."""
    path = expand_path(source)
    if is_folder(path):
        names = [name for key in registry.CHECKPOINTS for name in registry.find(registry.CHECKPOINTS, key).files]
        for name in names:
            if is_file(path / name):
                return path / name
        if is_file(path / "model.safetensors.index.json"):
            raise CheckpointError(
                source,
                "holds its weights in several files",
                "Write them into one: model.save_pretrained(folder, max_shard_size='100GB')",
            )
        # best/model.safetensors, the first name, last: the folder itself is said to be closed before one in it.
        closed = next(filter(None, (if_closed(path / name) for name in reversed(names))), "")
        if closed:
            raise CheckpointError(
                source, f"cannot be read{closed}", "Make it a folder that this user may read, or name another"
            )
        raise CheckpointError(
            source,
            f"is a folder without {', '.join(dict.fromkeys(names))}",
            "Name a run folder that has scored its weights, a folder that transformers wrote, or a weights file",
        )
    if is_file(path):
        return path
    closest, near = closest_id(source), _nearest_path(path)
    if path_exists(path):
        fix = "Name a run folder, or a weights file"
    elif closest:
        fix = f"Did you mean the hub id {closest}"
    elif near:
        fix = f"Did you mean {near}"
    else:
        fix = f"Check the path, or name a hub id, such as {next(iter(HUB_FILES))} ({len(HUB_FILES)} are known by name)"
    raise CheckpointError(source, missing(path), fix)


def _nearest_path(path: Path) -> Path | None:
    """A neighbor of a path that does not exist, with a similar name."""
    try:
        by_name = {found.name: found for found in list_folder(path.parent) if is_file(found) or is_folder(found)}
    except OSError:
        return None
    names = get_close_matches(path.name, by_name, n=1)
    return by_name[names[0]] if names else None


def read_file(path: Path, source: str) -> tuple[Content, dict[str, str]]:
    """Content and metadata; the first bytes say how to read it, and code in the file is never run."""
    try:
        with path.open("rb") as file:
            start = file.read(512)
            end = file.seek(0, os.SEEK_END)
    except OSError as error:
        raise CheckpointError(
            path, f"cannot be read ({error.strerror})", "Make it a file that this user may read"
        ) from error
    if not start:
        raise CheckpointError(source, "is empty", "Fetch or export it again")
    if not start.strip(b"\0"):
        raise CheckpointError(
            source, f"is {end} bytes of which the first are all zero: a download that was cut off", "Fetch it again"
        )
    if start.startswith(b"version https://git-lfs"):
        raise CheckpointError(source, "is a Git LFS pointer, not the weights", "Run git lfs pull where it came from")
    if start.lstrip().lower().startswith((b"<!doctype", b"<html")):
        raise CheckpointError(source, "is a web page, not weights", "Download the file itself, not the page about it")
    packed = next((name for signature, name in _ARCHIVES.items() if start.startswith(signature)), None)
    if packed:
        raise _to_unpack(source, packed)
    if start[8:9] == b"{":
        return _read_safetensors(path, source)
    if start.startswith(b"PK\x03\x04"):
        return _read_archive(path, source), {}
    if start.startswith(b"\x80"):
        return _read_pickle(path, source, mapped=False), {}
    other = next((name for signature, name in _OTHERS.items() if start.startswith(signature)), None) or next(
        (name for ending, name in _OTHERS_BY_NAME.items() if path.name.lower().endswith(ending)), None
    )
    if other:
        raise CheckpointError(source, f"is {other}, not a weights file", _NAME_WEIGHTS)
    raise CheckpointError(
        source, "is neither a .pth nor a .safetensors file", "Name a weights file in one of the two formats"
    )


def _to_unpack(source: str, packed: str) -> CheckpointError:
    return CheckpointError(
        source,
        f"is {packed}, not a weights file",
        "Unpack it, and name the .pth or .safetensors file that was in it",
    )


def _read_archive(path: Path, source: str) -> Content:
    """A zip archive of weights; one whose table is cut off may have been one, which torch will say."""
    archive = inspect_archive(path)
    if archive is None:
        return _read_pickle(path, source, mapped=False)
    if archive.kind in ("TorchScript", "exported"):
        of_what = "TorchScript" if archive.kind == "TorchScript" else "torch.export"
        raise CheckpointError(
            source, f"is a program of {of_what}, whose weights come with code; it stays closed", _NAME_WEIGHTS
        )
    if archive.kind == "other":
        raise _to_unpack(source, "a zip archive")
    if archive.fault:
        raise CheckpointError(source, f"is cut short or damaged ({archive.fault})", "Fetch or export it again")
    # Compressed records cannot be mapped: torch would take the compressed bytes for numbers.
    return _read_pickle(path, source, mapped=not archive.compressed)


def _read_safetensors(path: Path, source: str) -> tuple[Content, dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, *_BROKEN) as error:
        raise CheckpointError(
            source, f"is cut short or damaged ({first_line(error)})", "Fetch or export it again"
        ) from error


def _read_pickle(path: Path, source: str, mapped: bool) -> Content:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols; errors are reported below
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            source,
            "holds more than tensors and plain values, or is damaged; opening it could run code, so it stays closed",
            "Write its weights alone: torch.save(model.state_dict(), path)",
        ) from error
    except (*_BROKEN, RecursionError) as error:
        # Some messages of torch say how to let the file run code, which we must not pass on as a fix.
        reason = "torch cannot read it" if "weights_only" in str(error) else first_line(error)
        raise CheckpointError(source, f"is cut short or damaged ({reason})", "Fetch or export it again") from error
    if not isinstance(content, Mapping):
        raise CheckpointError(
            source,
            f"holds a {type(content).__name__}, not weights by name",
            "Write its weights: torch.save(model.state_dict(), path)",
        )
    return content


def decode_metadata(text: str) -> object:
    """A metadata value: JSON in our files, any text in others; endless numbers and nesting are not our JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
