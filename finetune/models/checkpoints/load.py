"""Reads a weights file: its format, kind and encoder, and which of its tensors are the network's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from finetune.models.checkpoints.adapter import CONFIG_FILE, base_of, merge_into_base
from finetune.models.checkpoints.files import decode_metadata, find_file, read_file
from finetune.models.checkpoints.format import Description
from finetune.models.checkpoints.hub import (
    HUB_FILES,
    CheckpointKind,
    HubFile,
    closest_id,
    fetch,
    fetch_transformers,
    is_hub_id,
    published_as,
)
from finetune.models.checkpoints.identity import (
    IN_RECIPE,
    MAX_DEPTH_M,
    MIN_DEPTH_M,
    ArgumentNames,
    CheckpointIdentity,
    claim_identity,
    is_depth,
    resolve_identity,
    resolve_input_size,
)
from finetune.models.checkpoints.metadata import require_sound
from finetune.models.checkpoints.plain_tensors import require_plain
from finetune.models.checkpoints.select import select_network
from finetune.models.checkpoints.sidecar import file_digest
from finetune.models.checkpoints.unwrap import Content, find_tensors
from finetune.models.encoder_specs import ENCODERS, ORIGINAL_OFFSET, TRANSFORMERS_OFFSET
from finetune.models.training_camera import TrainingCamera
from finetune.utils import registry
from finetune.utils.errors import CheckpointError, first_line, shown
from finetune.utils.kinds import Activation, KindOption
from finetune.utils.paths import expand_path, path_exists
from finetune.utils.text import count_noun


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A weights file, read and understood.

    Attributes:
        source: what the user wrote: a path or a hub id.
        path: the file itself.
        format: a key of ``registry.CHECKPOINTS``.
        kind: ``relative``, ``relative_depth``, ``metric``, or ``encoder`` for one without a decoder.
        kind_assumed: nothing says whether it is relative or metric, so ``relative`` is assumed.
        version_assumed: nothing says whether it is V1 or V2, so V2 is assumed.
        encoder: a key of ``ENCODERS``, found by the shapes.
        max_depth_m: of a metric one, meters; None for the others.
        activation: of the head; ``exp`` of a metric one has no end, and ``max_depth_m`` is what an output of 0 stands
            for. None for an encoder.
        version: ``v1`` or ``v2`` of Depth Anything.
        position_offset: patches; how its network samples the position embedding.
        input_size: height and width in pixels that it was trained at; None where nothing says it.
        chosen: sentences about what was chosen from a file that holds more; the notes have them too.
        tensors: by our names, float32.
        metadata: by our names, of the file itself or of the files next to it; empty where there is none.
        metadata_file: the file that has, or would have, the metadata, as the user can open it.
        sha256: of the file.
        license: of the weights, where it is known.
        notes: sentences to print.
    """

    source: str
    path: Path
    format: str
    kind: CheckpointKind
    kind_assumed: bool
    version_assumed: bool
    encoder: str
    max_depth_m: float | None
    activation: Activation | None
    version: str
    position_offset: float
    input_size: tuple[int, int] | None
    chosen: tuple[str, ...]
    tensors: dict[str, Tensor]
    metadata: dict[str, Any]
    metadata_file: str
    sha256: str
    license: str | None
    notes: tuple[str, ...]

    @property
    def camera(self) -> TrainingCamera | None:
        """What it was trained with; None where the file does not say it."""
        said = self.metadata.get("camera")
        return TrainingCamera.from_mapping(said) if isinstance(said, Mapping) else None

    @property
    def has_head(self) -> bool:
        """Whether it is a whole network; an encoder alone gives no depth."""
        return self.kind != "encoder"


def read_checkpoint(
    source: str,
    *,
    kind: KindOption = "auto",
    max_depth_m: float | None = None,
    version: str = "auto",
    encoder: str = "auto",
    input_size: tuple[int, int] | None = None,
    adapters: bool = True,
    where: str = "",
    wording: ArgumentNames = IN_RECIPE,
) -> Checkpoint:
    """
    Args:
        source: a file, a run folder (its ``best/model.safetensors``), a folder that transformers wrote, or a hub id.
        kind: ``auto``, ``relative`` or ``metric``; needed for an official file without a ``.json`` next to it.
        max_depth_m: of a metric official file without that ``.json``, meters.
        version: ``auto``, ``v1`` or ``v2``, of such a file.
        encoder: ``auto``, or the key of ``ENCODERS`` that the file must have.
        input_size: height and width in pixels that it was trained at, of a file that does not say it.
        adapters: of a folder of adapters; False leaves them out, and gives the network that peft adds them to.
        where: an error that names a recipe key adds it in brackets, such as ``recipe.yaml:2``.
        wording: how errors name these arguments.

    Returns:
        The content of the file by our tensor names.

    Raises:
        CheckpointError: it is missing, broken, of no known format, or contradicts the arguments.
    """
    entry, path = _found(source, wording)
    contents = _contents_of(path, source)
    if contents.format == "adapter":
        contents = _on_its_base(contents, path, source, adapters)
    _require_merged(contents.tensors, source)
    caller = _Caller(
        source=source,
        stated=CheckpointIdentity(
            kind=None if kind == "auto" else kind,
            max_depth_m=max_depth_m,
            version=None if version == "auto" else version,
        ),
        encoder=encoder,
        input_size=input_size,
        in_brackets=f" ({where})" if where else "",
        wording=wording,
    )
    return _identified(path, contents, entry, caller)


@dataclass(frozen=True, kw_only=True)
class _Caller:
    """What the caller of ``read_checkpoint`` says about a file, and how errors name it.

    Attributes:
        source: what the user wrote.
        stated: None where the caller leaves it to the file.
        encoder, input_size, wording: as the arguments.
        in_brackets: `` (where)``, or nothing.
    """

    source: str
    stated: CheckpointIdentity
    encoder: str
    input_size: tuple[int, int] | None
    in_brackets: str
    wording: ArgumentNames


def _identified(path: Path, contents: _Contents, entry: HubFile | None, caller: _Caller) -> Checkpoint:
    """
    The checkpoint: its kind, encoder, max depth, version and license.

    Raises:
        CheckpointError: the file and its caller contradict each other.
    """
    source, stated, wording, in_brackets = caller.source, caller.stated, caller.wording, caller.in_brackets
    described = contents.described
    claim = claim_identity(described.says, entry, described.file)
    if stated.max_depth_m is not None and not is_depth(stated.max_depth_m):
        raise CheckpointError(
            source,
            f"{wording.max_depth_m} is {stated.max_depth_m:g}; expected {MIN_DEPTH_M:g} to {MAX_DEPTH_M:g} meters",
            f"Write the meters it was trained with{in_brackets}",
        )
    kind, max_depth_m, version = resolve_identity(claim, stated, source, path, in_brackets, wording)
    encoder = _encoder_of(contents.tensors, source, caller.encoder, in_brackets)
    known = entry or (published_as(path.name, encoder) if claim == CheckpointIdentity() else None)
    license_name = (known.license if known else None) or _license_in(described.says)
    assumed = CheckpointIdentity(
        kind=kind if claim.kind is None and stated.kind is None else None,
        version=version if claim == CheckpointIdentity() and stated.version is None and known is None else None,
    )
    return Checkpoint(
        source=source,
        path=path,
        format=contents.format,
        kind=kind,
        kind_assumed=assumed.kind is not None,
        version_assumed=assumed.version is not None,
        encoder=encoder,
        max_depth_m=max_depth_m,
        activation=_activation_in(described, kind),
        version=version,
        position_offset=_offset_in(described),
        input_size=resolve_input_size(described.says, caller.input_size, entry, source, in_brackets, wording),
        chosen=contents.chosen,
        tensors=contents.tensors,
        metadata=described.says,
        metadata_file=described.file,
        sha256=contents.sha256,
        license=license_name,
        notes=(
            *contents.notes,
            *contents.chosen,
            *_assumptions(source, assumed, in_brackets, wording),
            *_license_notes(source, license_name, known.caveat if known else ""),
        ),
    )


@dataclass(frozen=True, kw_only=True)
class _Contents:
    """The tensors of a file by our names, and its description, before its kind and encoder are known."""

    format: str
    tensors: dict[str, Tensor]
    described: Description
    sha256: str
    notes: tuple[str, ...]
    chosen: tuple[str, ...]


def _contents_of(path: Path, source: str) -> _Contents:
    content, raw_metadata = read_file(path, source)
    own_metadata = {key: decode_metadata(text) for key, text in raw_metadata.items()}
    tensors = find_tensors(content)
    network, chosen = select_network(tensors, content, own_metadata, source)
    require_plain(network.tensors, source)
    format_class = registry.find(registry.CHECKPOINTS, network.format)
    sha256 = file_digest(path)
    described = format_class.description(path, source, own_metadata, sha256)
    require_sound(described.says, described.file)
    require_plain(described.tensors, described.file)
    ours = {key: value.float() for key, value in (format_class.to_ours(network.tensors) | described.tensors).items()}
    training = (f"training checkpoint{_epoch_of(content)}: using its model weights",) if tensors.nested else ()
    return _Contents(
        format=network.format,
        tensors=ours,
        described=described,
        sha256=sha256,
        notes=(*described.notes, *training),
        chosen=chosen,
    )


def _on_its_base(adapter: _Contents, path: Path, source: str, adapters: bool) -> _Contents:
    """
    Raises:
        CheckpointError: the base is missing, is not the file that the adapter was trained on, or does not fit.
    """
    base_source, scale = base_of(path, source)
    said = adapter.described.says.get("base")
    expected = said.get("sha256") if isinstance(said, Mapping) else None
    fix = f"Put the base there, or name it in {path.with_name(CONFIG_FILE)} as base_model_name_or_path"
    try:
        _, base_path = _found(base_source, IN_RECIPE)
    except CheckpointError as error:
        raise CheckpointError(source, f"base {base_source} not found ({error.found})", fix) from error
    base = _contents_of(base_path, base_source)
    if expected and base.sha256 != expected:
        raise CheckpointError(
            source, f"was trained on another file than its base {base_source} (sha256 {expected[:12]} expected)", fix
        )
    try:
        tensors = merge_into_base(base.tensors, adapter.tensors, scale if adapters else 0.0)
    except (KeyError, RuntimeError) as error:
        raise CheckpointError(source, f"does not fit its base {base_source} ({first_line(error)})", fix) from error
    note = f"adapter over its base {base_source}"
    return replace(adapter, tensors=tensors, notes=(*adapter.notes, note))


def _found(source: str, wording: ArgumentNames) -> tuple[HubFile | None, Path]:
    """The entry of the hub's table and the file of a source; a path that exists is never taken for a hub id."""
    if path_exists(expand_path(source)):
        return None, find_file(source)
    entry = HUB_FILES.get(source)
    if entry:
        return entry, fetch(entry, wording.source)
    if is_hub_id(source) and closest_id(source) is None:
        return None, fetch_transformers(source, wording.source)
    return None, find_file(source)


def _epoch_of(content: Content) -> str:
    epoch = content.get("epoch")
    return f", epoch {epoch}" if isinstance(epoch, int) and not isinstance(epoch, bool) else ""


def _assumptions(source: str, assumed: CheckpointIdentity, in_brackets: str, wording: ArgumentNames) -> list[str]:
    """Sentences about what is assumed because nothing says it."""
    notes = []
    if assumed.kind:
        notes.append(
            f"{source} cannot say whether it is relative or metric: taken as relative (inverse depth, no unit). "
            f"If it is metric, set {wording.kind} and {wording.max_depth_m}{in_brackets}"
        )
    if assumed.version:
        notes.append(
            f"{source} cannot say whether it is V1 or V2 of Depth Anything: taken as V2. If it is V1, set "
            f"{wording.version} to v1{in_brackets}"
        )
    return notes


def _license_notes(source: str, license_name: str | None, caveat: str) -> list[str]:
    notes = [f"{source} has license {license_name}: no commercial use"] if "-NC" in (license_name or "") else []
    if caveat:
        notes.append(f"{source} has {license_sentence(license_name)}; {caveat}")
    return notes


def license_sentence(license_name: str | None) -> str:
    """The license of weights, to show where they are loaded and exported."""
    return f"license {license_name}" if license_name else "no license that is known here: ask who gave you the weights"


def _offset_in(described: Description) -> float:
    offset = described.says.get("position_offset", ORIGINAL_OFFSET)
    if not isinstance(offset, int | float) or offset not in (ORIGINAL_OFFSET, TRANSFORMERS_OFFSET):
        raise CheckpointError(
            described.file,
            f"says position_offset {shown(offset)}; expected {ORIGINAL_OFFSET} or {TRANSFORMERS_OFFSET}",
            "Export it again from its run folder",
        )
    return float(offset)


def _activation_in(described: Description, kind: CheckpointKind) -> Activation | None:
    """
    Raises:
        CheckpointError: the file says one that a head of this kind cannot have.
    """
    usual: dict[CheckpointKind, tuple[Activation, ...]] = {
        "encoder": (),
        "relative": ("relu",),
        "relative_depth": ("exp",),
        "metric": ("sigmoid", "exp"),
    }
    known = usual[kind]
    said = described.says.get("activation")
    # Files from before there was a choice, and those of others, do not say it.
    found = next((name for name in known if said in (None, name)), None)
    if found is None and known:
        raise CheckpointError(
            described.file, f"says activation {shown(said)}; expected {' or '.join(known)}", "Export it again"
        )
    return found


def _require_merged(tensors: Mapping[str, Tensor], source: str) -> None:
    """
    Raises:
        CheckpointError: there are adapters next to the weights; without them the network would predict as its base.
    """
    adapter = next((name for name in tensors if ".lora_" in name or ".modules_to_save." in name), None)
    if adapter:
        raise CheckpointError(
            source,
            f"holds adapters next to the weights that they change ({adapter})",
            "Merge them before saving (model.merge_and_unload()), or name the folder that peft saved",
        )


def _license_in(metadata: Mapping[str, object]) -> str | None:
    base = metadata.get("base")
    found = base.get("license") if isinstance(base, Mapping) else None
    return found if isinstance(found, str) else None


def _encoder_of(tensors: Mapping[str, Tensor], source: str, wanted: str, in_brackets: str) -> str:
    """The encoder that has these shapes; it must be the wanted one."""
    blocks = len({name.split(".")[2] for name in tensors if name.startswith("encoder.blocks.")})
    if not blocks or "encoder.cls_token" not in tensors:
        raise CheckpointError(source, "has no encoder", "Use a whole model's weights")
    width = tensors["encoder.cls_token"].shape[-1:].numel()
    found = next((name for name, spec in ENCODERS.items() if (spec.depth, spec.embed_dim) == (blocks, width)), None)
    if found is None:
        raise CheckpointError(
            source,
            f"found {count_noun(blocks, 'block')} of width {width}, which is no known encoder",
            f"Use the weights of one of {', '.join(ENCODERS)}",
        )
    if wanted not in ("auto", found):
        spec = ENCODERS[wanted]
        difference = (
            f"found {count_noun(blocks, 'block')}, encoder {wanted} has {spec.depth}"
            if blocks != spec.depth
            else f"found tokens of width {width}, encoder {wanted} has {spec.embed_dim}"
        )
        raise CheckpointError(source, difference, f"Set model.encoder to {found}{in_brackets}")
    return found
