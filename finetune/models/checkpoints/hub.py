"""Published weights: what each is, under which license, and how to fetch its file from the Hugging Face hub."""

from __future__ import annotations

import errno
import os
import re
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

from finetune.utils.errors import CheckpointError
from finetune.utils.kinds import Kind
from finetune.utils.paths import is_folder

# What weights predict; an encoder alone has no decoder and predicts no depth.
CheckpointKind = Kind | Literal["encoder"]
NONCOMMERCIAL = "CC-BY-NC-4.0"
# The files of a model that transformers published, the weights last.
TRANSFORMERS_FILES = ("config.json", "preprocessor_config.json", "model.safetensors")
# Files next to the weights that are read where they exist, of a model that is not in the table; and its weights.
_SIDE_FILES = (
    "config.json",
    "preprocessor_config.json",
    "finetune.json",
    "finetune_positions.safetensors",
    "adapter_config.json",
)
_WEIGHTS = ("model.safetensors", "pytorch_model.bin", "adapter_model.safetensors")
# A name on the hub: no dot or dash first.
_ID = re.compile(r"[A-Za-z0-9_][\w.-]*/[A-Za-z0-9_][\w.-]*", re.ASCII)
_MAX_ID_LENGTH = 96
_OF_DISK = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENOTDIR)
# Folders that our recipes and messages name: "runs/desc" is a run, even before any run was made.
_OUR_FOLDERS = frozenset(("runs", "weights"))
_SIZES = (("Small", "vits"), ("Base", "vitb"), ("Large", "vitl"))


@dataclass(frozen=True, kw_only=True)
class HubFile:
    """One published weights file.

    Attributes:
        repository: hub id.
        files: names there: the weights, last, and the files that belong to them.
        kind: ``encoder`` is one without a decoder.
        encoder: a key of ``ENCODERS``.
        version: ``v1`` or ``v2`` of Depth Anything; None for a bare encoder.
        max_depth_m: of a metric one, meters; of an exponential one what an output of 0 stands for.
        license: as its model card has it; None where the card has none.
        caveat: what else is known about its license, to follow the license in a sentence.
        alias: name of the same weights outside of the hub.
    """

    repository: str
    files: tuple[str, ...]
    kind: CheckpointKind
    encoder: str
    version: str | None
    max_depth_m: float | None
    license: str | None
    caveat: str = ""
    alias: str = ""

    @property
    def file(self) -> str:
        """The name of the weights file."""
        return self.files[-1]


def _relative() -> list[HubFile]:
    """V2 and V1, as the original reads them and as transformers does."""
    files = []
    for size, encoder in _SIZES:
        of_v2 = "Apache-2.0" if size == "Small" else NONCOMMERCIAL
        v2, v1 = f"depth-anything/Depth-Anything-V2-{size}", f"LiheYoung/depth-anything-{size.lower()}-hf"
        for repository, names, version, license_name in (
            (v2, (f"depth_anything_v2_{encoder}.pth",), "v2", of_v2),
            (f"{v2}-hf", TRANSFORMERS_FILES, "v2", of_v2),
            (v1, TRANSFORMERS_FILES, "v1", "Apache-2.0"),
            (f"LiheYoung/depth_anything_{encoder}14", ("pytorch_model.bin",), "v1", None),
        ):
            files.append(
                HubFile(
                    repository=repository,
                    files=names,
                    kind="relative",
                    encoder=encoder,
                    version=version,
                    max_depth_m=None,
                    license=license_name,
                    alias=f"depth_anything_{encoder}14.pth" if names == ("pytorch_model.bin",) else "",
                )
            )
    return files


def _metric() -> list[HubFile]:
    """V2 fine-tuned to meters: the original's files, and the same weights as transformers reads them."""
    files = []
    for size, encoder in _SIZES:
        for data, place, max_depth_m in (("Hypersim", "Indoor", 20.0), ("VKITTI", "Outdoor", 80.0)):
            # The original's cards say Apache-2.0 for all sizes; of the other cards only this one names a license.
            stated = "Apache-2.0" if (place, size) == ("Outdoor", "Large") else None
            name = f"depth_anything_v2_metric_{data.lower()}_{encoder}.pth"
            for repository, names, license_name in (
                (f"depth-anything/Depth-Anything-V2-Metric-{data}-{size}", (name,), "Apache-2.0"),
                (f"depth-anything/Depth-Anything-V2-Metric-{place}-{size}-hf", TRANSFORMERS_FILES, stated),
            ):
                files.append(
                    HubFile(
                        repository=repository,
                        files=names,
                        kind="metric",
                        encoder=encoder,
                        version="v2",
                        max_depth_m=max_depth_m,
                        license=license_name,
                        caveat="" if size == "Small" else f"the relative model it was trained from is {NONCOMMERCIAL}",
                    )
                )
    return files


def _depth_anything_3() -> list[HubFile]:
    """The two monocular ones of Depth Anything 3, whose network is that of V2; the others are for several views."""
    kinds: tuple[tuple[str, Kind, float | None], ...] = (("MONO", "relative_depth", None), ("METRIC", "metric", 1.0))
    return [
        HubFile(
            repository=f"depth-anything/DA3{name}-LARGE",
            files=("config.json", "model.safetensors"),
            kind=kind,
            encoder="vitl",
            version="v2",
            max_depth_m=max_depth_m,
            license="Apache-2.0",
        )
        for name, kind, max_depth_m in kinds
    ]


def _encoders() -> list[HubFile]:
    """DINOv2 alone, as timm publishes it."""
    sizes = (("small", "vits"), ("base", "vitb"), ("large", "vitl"), ("giant", "vitg"))
    return [
        HubFile(
            repository=f"timm/vit_{size}_patch14_dinov2.lvd142m",
            files=("model.safetensors",),
            kind="encoder",
            encoder=encoder,
            version=None,
            max_depth_m=None,
            license="Apache-2.0",
        )
        for size, encoder in sizes
    ]


HUB_FILES = {entry.repository: entry for entry in (*_relative(), *_metric(), *_depth_anything_3(), *_encoders())}


def published(file_name: str) -> HubFile | None:
    """The entry whose weights have this file name; None where there is none, or the name says nothing."""
    named = [entry for entry in HUB_FILES.values() if file_name in (entry.file, entry.alias)]
    return named[0] if len(named) == 1 else None


def published_as(file_name: str, encoder: str) -> HubFile | None:
    """The entry whose weights have this file name and this encoder: any file can be given a name."""
    entry = published(file_name)
    return entry if entry and entry.encoder == encoder else None


def is_hub_id(source: str) -> bool:
    """Whether ``source`` may be the id of a model: of the table, or ``owner/name`` that does not look like a path.

    It looks like a path if it ends in a file's suffix, or if ``owner`` is a folder here or one that our recipes
    write to.
    """
    if source in HUB_FILES:
        return True
    if not _ID.fullmatch(source) or len(source) > _MAX_ID_LENGTH or ".." in source or "--" in source:
        return False
    # .pth, but not the .5 of a model-v1.5
    owner = source.partition("/")[0]
    return (
        not re.fullmatch(r"\.[A-Za-z]\w*", Path(source).suffix) and owner not in _OUR_FOLDERS and not is_folder(owner)
    )


def closest_id(source: str) -> str | None:
    """The hub id of the table that ``source`` was probably meant to be."""
    by_lower_case = {repository.lower(): repository for repository in HUB_FILES}
    matches = get_close_matches(source.lower(), by_lower_case, n=1, cutoff=0.8)
    return by_lower_case[matches[0]] if matches else None


def fetch(entry: HubFile, naming: str = "set model.checkpoint:") -> Path:
    """
    Args:
        entry: one of ``HUB_FILES``.
        naming: how the error says to name a file instead.

    Returns:
        The weights in huggingface_hub's cache, next to the files that belong to them. What is missing is downloaded
        now, with a progress bar.

    Raises:
        CheckpointError: a file is not in the cache and cannot be fetched.
    """
    folder = "weights" if len(entry.files) == 1 else f"weights/{entry.repository.rpartition('/')[2]}"
    for file in entry.files:
        path = _fetched(entry.repository, file, f"put it into {folder}/ and {naming} {folder}/{entry.file}")
    return path


def fetch_transformers(repository: str, naming: str = "set model.checkpoint:") -> Path:
    """As ``fetch``, of a hub id that is not in the table: a model that transformers wrote, or that we exported.

    All files that are read with the weights are fetched too; without them the weights would mean something else.
    """
    folder = f"weights/{repository.rpartition('/')[2]}"
    instead = f"put the repository's files into {folder}/ and {naming} {folder}"
    weights = next((name for name in _WEIGHTS if _cached(repository, name) is not None), None)
    for file in _SIDE_FILES:
        _fetched_if_there(repository, file, instead, may_be_unknown=weights is not None and file != _SIDE_FILES[0])
    for file in (weights,) if weights else _WEIGHTS:
        path = _fetched_if_there(repository, file, instead)
        if path is not None:
            return path
    raise CheckpointError(
        repository, f"holds none of {', '.join(_WEIGHTS)}", "Name a repository that holds the weights of one model"
    )


def _cached(repository: str, file: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(repository, file)
    return Path(path) if isinstance(path, str) else None


def _fetched_if_there(repository: str, file: str, instead: str, may_be_unknown: bool = False) -> Path | None:
    """
    Returns:
        The file, or None where the repository has none of that name.

    Raises:
        CheckpointError: the hub cannot be asked, and ``may_be_unknown`` is False.
    """
    from huggingface_hub import _CACHED_NO_EXIST, hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError

    if try_to_load_from_cache(repository, file) is _CACHED_NO_EXIST:
        return None
    try:
        return _fetched(repository, file, instead)
    except CheckpointError as error:
        if isinstance(error.__cause__, EntryNotFoundError):
            # Only the download notes in the cache that there is no such file, for the next call without a network.
            with suppress(EntryNotFoundError):
                hf_hub_download(repository, file)
            return None
        if may_be_unknown:
            return None
        raise


def _fetched(repository: str, file: str, instead: str) -> Path:
    # Else the hub's client sends the versions of what it runs with; it reads this when it is imported.
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_download, hf_hub_url

    cached = _cached(repository, file)
    if cached is not None:
        return cached
    try:
        # Ask first: the download repeats a refused connection for half a minute.
        get_hf_file_metadata(hf_hub_url(repository, file))
        return Path(hf_hub_download(repository, file))
    # The hub's client has changed its transport twice, and each transport has its own errors.
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _OF_DISK:
            raise CheckpointError(
                repository,
                f"{file} cannot be written to the cache {constants.HF_HUB_CACHE} ({error.strerror})",
                "Free space there, or set HF_HOME to a folder that this user may write to",
            ) from error
        here = "" if repository in HUB_FILES else "no such file or folder here, and as a hub id its "
        raise CheckpointError(
            repository,
            f"{here}{file} is not in the cache and could not be fetched from {constants.ENDPOINT} "
            f"({type(error.__cause__ or error).__name__})",
            f"Download {constants.ENDPOINT}/{repository}/resolve/main/{file} where there is a network, {instead}",
        ) from error
