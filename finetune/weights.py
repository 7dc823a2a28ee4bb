"""Weights files in and out: what a file is, which of its tensors the network takes, and how ours is written."""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from finetune import registry
from finetune.checkpoints.hub import HUB_FILES, HubFile, closest_id, fetch
from finetune.checkpoints.native import FORMAT, VERSION, Native
from finetune.checkpoints.wrapping import unwrap
from finetune.errors import CheckpointError
from finetune.networks.depth_model import UNUSED_UNIT, DepthModel
from finetune.networks.encoder_specs import ENCODERS

LAST_LAYER = "head.last."
# What the network never reads; a file without them is whole.
UNUSED = ("encoder.mask_token", f"{UNUSED_UNIT}.")


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A weights file, read and understood.

    Attributes:
        source: what the user wrote: a path or a hub id.
        path: the file itself.
        format: a key of ``registry.CHECKPOINTS``.
        kind: ``relative`` or ``metric``.
        kind_assumed: nothing said which of the two it is, so ``relative`` was assumed.
        encoder: a key of ``ENCODERS``, told from the shapes.
        max_depth_m: of a metric one, meters; None for a relative one.
        tensors: by our name, float32.
        metadata: of our own file, or of the ``.json`` beside an official one; empty when there is none.
        metadata_file: what the metadata was, or would be, read from, as the user can open it.
        sha256: of the file.
        license: of the weights, where it is known.
        notes: sentences to print.
    """

    source: str
    path: Path
    format: str
    kind: str
    kind_assumed: bool
    encoder: str
    max_depth_m: float | None
    tensors: dict[str, Tensor]
    metadata: dict[str, Any]
    metadata_file: str
    sha256: str
    license: str | None
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Wording:
    """How a sentence names the arguments of ``read_checkpoint``: as a recipe does, unless said otherwise.

    Attributes:
        source: to write another source.
        kind, max_depth_m: the two arguments.
        no_max_depth: to write none.
    """

    source: str = "set model.checkpoint:"
    kind: str = "model.checkpoint_kind"
    max_depth_m: str = "model.checkpoint_max_depth_m"
    no_max_depth: str = "Set model.checkpoint_max_depth_m to null"


IN_RECIPE = Wording()


def read_checkpoint(
    source: str,
    *,
    kind: str = "auto",
    max_depth_m: float | None = None,
    encoder: str = "auto",
    where: str = "",
    wording: Wording = IN_RECIPE,
) -> Checkpoint:
    """
    Args:
        source: a file, a run folder (its ``best/model.safetensors``), or a hub id of ``checkpoints/hub.py``.
        kind: ``auto``, ``relative`` or ``metric``; needed for an official file that has no ``.json`` beside it.
        max_depth_m: of a metric official file without that ``.json``, meters.
        encoder: ``auto``, or the key of ``ENCODERS`` that the file must be.
        where: what an error that names a recipe key adds in brackets, such as ``recipe.yaml:2``.
        wording: what an error calls these arguments.

    Returns:
        The file's content by our tensor names.

    Raises:
        CheckpointError: it is missing, broken, of no known format, or contradicts the arguments.
    """
    entry = None if Path(source).exists() else HUB_FILES.get(source)
    path = fetch(entry, wording.source) if entry else _find(source)
    content, raw_metadata = _read_file(path, source)
    plain, nested = unwrap(content)
    tensors = {name: tensor for name, tensor in plain.items() if isinstance(tensor, Tensor)}
    own_metadata = {key: _decoded(text) for key, text in raw_metadata.items()}
    name, format_class = _format_of(tensors, own_metadata, source)
    sidecar = path.with_suffix(".json")
    metadata, metadata_file = (own_metadata, source) if name == "native" else (_sidecar(sidecar), str(sidecar))
    ours = {key: value.float() for key, value in format_class.to_ours(tensors).items()}
    in_brackets = f" ({where})" if where else ""
    claim = _Claim.of(metadata, entry, metadata_file)
    found_kind, found_max_depth_m = claim.settle(source, path, kind, max_depth_m, in_brackets, wording)
    assumed = claim.kind is None and kind == "auto"
    license_name = entry.license if entry else _license_in(metadata)
    return Checkpoint(
        source=source,
        path=path,
        format=name,
        kind=found_kind,
        kind_assumed=assumed,
        encoder=_encoder_of(ours, source, encoder, in_brackets),
        max_depth_m=found_max_depth_m,
        tensors=ours,
        metadata=metadata,
        metadata_file=metadata_file,
        sha256=_digest(path),
        license=license_name,
        notes=_notes(source, nested, assumed, license_name, in_brackets, wording),
    )


def _notes(
    source: str, nested: bool, assumed: bool, license_name: str | None, in_brackets: str, wording: Wording
) -> tuple[str, ...]:
    """What the user should know before using the file."""
    notes = []
    if nested:
        notes.append("training checkpoint: using its model weights")
    if assumed:
        notes.append(
            f"{source} cannot say whether it is relative or metric: taken as relative (inverse depth, no unit). "
            f"If it is metric, set {wording.kind} and {wording.max_depth_m}{in_brackets}"
        )
    if license_name and "-NC" in license_name:
        notes.append(f"{source} has license {license_name}: no commercial use")
    return tuple(notes)


def _find(source: str) -> Path:
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


def _read_file(path: Path, source: str) -> tuple[Mapping[str, Any], dict[str, str]]:
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


def _decoded(text: str) -> Any:
    """A metadata value: JSON in our files, anything in others."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _format_of(tensors: Mapping[str, Tensor], metadata: Mapping[str, Any], source: str) -> tuple[str, Any]:
    for name in registry.CHECKPOINTS:
        format_class = registry.find(registry.CHECKPOINTS, name)
        if format_class.recognises(tensors, metadata):
            _require_known_version(metadata, source)
            return name, format_class
    if any(name.startswith("backbone.") for name in tensors):
        raise CheckpointError(
            source,
            "is in the Hugging Face layout",
            "Use the official .pth of the same model, or its hub id without -hf",
        )
    if any(name.startswith("encoder.") for name in tensors):
        raise CheckpointError(
            source, "has our tensors but does not say what they are", "Use best/model.safetensors of the run folder"
        )
    names = ", ".join(list(tensors)[:3]) or "no tensors"
    raise CheckpointError(
        source,
        f"has {len(tensors)} tensors ({names}, ...), the names of no known format",
        "Use an official Depth Anything V2 file or one of ours",
    )


def _require_known_version(metadata: Mapping[str, Any], source: str) -> None:
    if metadata.get("format") == FORMAT and metadata.get("version") != VERSION:
        raise CheckpointError(
            source,
            f"is version {metadata.get('version')} of our format, this program reads version {VERSION}",
            "Use the program that wrote it, or export it from there as official",
        )


def _license_in(metadata: Mapping[str, Any]) -> str | None:
    base = metadata.get("base")
    found = base.get("license") if isinstance(base, Mapping) else None
    return found if isinstance(found, str) else None


def _sidecar(sidecar: Path) -> dict[str, Any]:
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


@dataclass(frozen=True)
class _Claim:
    """What a file, or what is known about it, says of its own meaning."""

    kind: str | None
    max_depth_m: float | None

    @classmethod
    def of(cls, metadata: Mapping[str, Any], entry: HubFile | None, metadata_file: str) -> _Claim:
        """
        Raises:
            CheckpointError: kind and max depth are not ones that a file of ours or of our export can have.
        """
        if entry:
            return cls(entry.kind, entry.max_depth_m)
        if not metadata:
            return cls(None, None)
        kind, max_depth_m = metadata.get("kind"), metadata.get("max_depth_m")
        if kind == "relative" and max_depth_m is None:
            return cls(kind, None)
        if kind == "metric" and _is_depth(max_depth_m):
            return cls(kind, float(max_depth_m))
        raise CheckpointError(
            metadata_file,
            f"says kind {kind!r} and max_depth_m {max_depth_m!r}; expected metric and a positive number of meters, or "
            "relative and none",
            "Export it again from its run folder",
        )

    def settle(
        self, source: str, path: Path, kind: str, max_depth_m: float | None, in_brackets: str, wording: Wording
    ) -> tuple[str, float | None]:
        """Kind and max depth, where the file and the recipe agree or only one of them speaks."""
        if self.kind is not None and kind not in ("auto", self.kind):
            raise CheckpointError(
                source,
                f"is {self.kind}, {wording.kind} says {kind}",
                f"Set {wording.kind} to auto{in_brackets}",
            )
        if self.max_depth_m is not None and max_depth_m not in (None, self.max_depth_m):
            raise CheckpointError(
                source,
                f"has max depth {self.max_depth_m:g} m, {wording.max_depth_m} says {max_depth_m:g}",
                f"{wording.no_max_depth}{in_brackets}",
            )
        if self.kind is None and kind == "auto" and "metric" in path.stem:
            published = next((entry for entry in HUB_FILES.values() if entry.file == path.name), None)
            depth = f"{published.max_depth_m:g}" if published and published.max_depth_m else "its max depth in meters"
            raise CheckpointError(
                source,
                "is called metric, but the file itself cannot say so",
                f"Set {wording.kind} to metric and {wording.max_depth_m} to {depth}{in_brackets}",
            )
        settled = self.kind or ("relative" if kind == "auto" else kind)
        depth_m = self.max_depth_m if self.max_depth_m is not None else max_depth_m
        if settled == "metric" and depth_m is None:
            raise CheckpointError(
                source,
                "is metric, but nothing says its max depth",
                f"Set {wording.max_depth_m} to the meters it was trained with{in_brackets}",
            )
        if settled == "relative" and depth_m is not None:
            raise CheckpointError(
                source,
                f"is relative, which has no max depth; {wording.max_depth_m} says {depth_m:g}",
                f"{wording.no_max_depth}, or set {wording.kind} to metric{in_brackets}",
            )
        return settled, depth_m


def _is_depth(value: object) -> TypeGuard[float]:
    """Whether it is a positive number that the network can compute with; JSON also has NaN, Infinity and true."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return 0 < value <= torch.finfo(torch.float32).max


def _encoder_of(tensors: Mapping[str, Tensor], source: str, wanted: str, in_brackets: str) -> str:
    """Which encoder the shapes are, and that it is the wanted one."""
    blocks = len({name.split(".")[2] for name in tensors if name.startswith("encoder.blocks.")})
    if not blocks or "encoder.cls_token" not in tensors:
        raise CheckpointError(source, "has no encoder", "Use a whole model's weights")
    width = tensors["encoder.cls_token"].shape[-1:].numel()
    found = next((name for name, spec in ENCODERS.items() if (spec.depth, spec.embed_dim) == (blocks, width)), None)
    if found is None:
        raise CheckpointError(
            source,
            f"found {blocks} blocks of width {width}, which is no encoder we know",
            f"Use the weights of one of {', '.join(ENCODERS)}",
        )
    if wanted not in ("auto", found):
        spec = ENCODERS[wanted]
        difference = (
            f"found {blocks} blocks, encoder {wanted} has {spec.depth}"
            if blocks != spec.depth
            else f"found tokens of width {width}, encoder {wanted} has {spec.embed_dim}"
        )
        raise CheckpointError(source, difference, f"Set model.encoder to {found}{in_brackets}")
    return found


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """How many of the network's tensors a checkpoint filled; printed, it is one line."""

    encoder: tuple[int, int]
    decoder: tuple[int, int]
    new: dict[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        parts = [f"{part} {filled}/{total}" for part, (filled, total) in self._counts() if part not in self.new]
        return ", ".join(parts + [f"{part} new ({count})" for part, count in self.new.items()])

    def _counts(self) -> list[tuple[str, tuple[int, int]]]:
        return [("encoder", self.encoder), ("decoder", self.decoder)]


def whole_network(checkpoint: Checkpoint) -> DepthModel:
    """
    Returns:
        The network of a checkpoint with every weight of it, on the CPU, ready to answer.

    Raises:
        CheckpointError: the checkpoint does not cover the network.
    """
    network = DepthModel(checkpoint.encoder, checkpoint.max_depth_m)
    fill(network, checkpoint, "all")
    return network.eval()


def fill(model: DepthModel, checkpoint: Checkpoint, parts: str) -> Coverage:
    """
    Args:
        model: its tensors are overwritten where ``parts`` says so; the others stay as they are.
        checkpoint: of the same encoder.
        parts: ``all``, ``encoder``, or ``all_but_last`` (not the last layer of the head).

    Returns:
        The counts of tensors; decoder and head count together.

    Raises:
        CheckpointError: a tensor of these parts is missing, unknown, of another shape, or not finite.
    """
    wanted = _WANTED[parts]
    targets = model.state_dict()
    filling = {name: tensor for name, tensor in checkpoint.tensors.items() if wanted(name)}
    missing = [n for n in targets if wanted(n) and n not in filling and not n.startswith(UNUSED)]
    unknown = [name for name in filling if name not in targets]
    reshaped = [
        f"{name} is {_by(tensor)} instead of {_by(targets[name])}"
        for name, tensor in filling.items()
        if name in targets and tensor.shape != targets[name].shape
    ]
    for what, names in (("lacks", missing), ("has another shape:", reshaped), ("has unknown tensors:", unknown)):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise CheckpointError(
                checkpoint.source,
                f"{what} {', '.join(names[:3])}{more} for encoder {model.encoder_name}",
                "Use a whole checkpoint of this encoder",
            )
    _require_finite(filling, checkpoint.source)
    with torch.no_grad():
        for name, target in targets.items():
            if name in filling:
                target.copy_(filling[name])
            elif wanted(name):
                target.zero_()
    return _coverage(targets, filling, parts)


def _require_finite(tensors: Mapping[str, Tensor], source: str) -> None:
    for name, tensor in tensors.items():
        if not name.startswith(UNUSED) and not tensor.isfinite().all():
            raise CheckpointError(
                source,
                f"{name} holds NaN or infinity, so no answer could be trusted",
                "Use weights from before they diverged, or fetch it again",
            )


_WANTED: dict[str, Callable[[str], bool]] = {
    "all": lambda name: True,
    "encoder": lambda name: name.startswith("encoder."),
    "all_but_last": lambda name: not name.startswith(LAST_LAYER),
}


def _coverage(targets: Mapping[str, Tensor], filled: Mapping[str, Tensor], parts: str) -> Coverage:
    in_encoder = [name in filled for name in targets if name.startswith("encoder.")]
    in_decoder = [name in filled for name in targets if not name.startswith("encoder.")]
    last = sum(name.startswith(LAST_LAYER) for name in targets)
    new = {"all": {}, "encoder": {"decoder": len(in_decoder)}, "all_but_last": {"last layer": last}}
    return Coverage(
        encoder=(sum(in_encoder), len(in_encoder)), decoder=(sum(in_decoder), len(in_decoder)), new=new[parts]
    )


def _by(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a single number"


def save_native(path: Path, model: DepthModel, metadata: Mapping[str, Any], half: bool = False) -> None:
    """
    Write the network as one self-describing file: wholly, or not at all.

    Args:
        path: ``model.safetensors``; its folder is made if it is missing.
        model: its kind, encoder and max depth become part of the metadata.
        metadata: plain values; by convention ``preprocessing``, ``camera``, ``base`` (source, sha256, license),
            ``recipe_sha256`` and ``evaluation``.
        half: store float16, which the reader gives back as float32; the metadata says so.
    """
    dtype = torch.float16 if half else torch.float32
    tensors = {
        name: tensor.detach().to("cpu", dtype).contiguous()
        for name, tensor in Native.from_ours(model.state_dict()).items()
    }
    described = {
        **metadata,
        "format": FORMAT,
        "version": VERSION,
        "kind": model.kind,
        "encoder": model.encoder_name,
        "max_depth_m": model.max_depth_m,
        "stored_as": "float16" if half else "float32",
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    # Beside the target, because a rename is whole or nothing only within one file system. A folder, because safetensors
    # writes under a random name of its own: what a kill leaves is then gone with the next write.
    folder = path.with_name(f".{path.name}.writing")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    unfinished = folder / path.name
    try:
        # safetensors gives its files mode 0600; an ordinary file shows the one that the umask asks for.
        unfinished.touch()
        mode = stat.S_IMODE(unfinished.stat().st_mode)
        save_file(tensors, unfinished, {key: json.dumps(value, sort_keys=True) for key, value in described.items()})
        _sort_metadata(unfinished)
        unfinished.chmod(mode)
        unfinished.replace(path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _sort_metadata(path: Path) -> None:
    """safetensors writes metadata in an order that changes from process to process; the same weights are one file."""
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        assert len(text) <= length
        file.seek(8)
        file.write(text.ljust(length))
