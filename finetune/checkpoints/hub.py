"""Published weights: what each is, under which license, and how to fetch its file from the Hugging Face hub."""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from finetune.errors import CheckpointError

NONCOMMERCIAL = "CC-BY-NC-4.0"
# The files of a model that transformers published, the weights last.
TRANSFORMERS_FILES = ("config.json", "preprocessor_config.json", "model.safetensors")
_SIZES = (("Small", "vits"), ("Base", "vitb"), ("Large", "vitl"))


@dataclass(frozen=True, kw_only=True)
class HubFile:
    """One published weights file.

    Attributes:
        repository: hub id.
        files: names there: the weights, last, and what belongs beside them.
        kind: ``relative``, ``metric`` or ``encoder`` (one without a decoder).
        encoder: a key of ``ENCODERS``.
        version: ``v1`` or ``v2`` of Depth Anything; None for a bare encoder.
        max_depth_m: of a metric one, meters.
        license: as its model card has it; None where the card has none.
        caveat: what else is known about its license, to follow the license in a sentence.
        alias: what the same weights are called where they are no file of the hub.
    """

    repository: str
    files: tuple[str, ...]
    kind: str
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
    """V2 trained on in meters: the original's, and the same weights as transformers reads them."""
    files = []
    for size, encoder in _SIZES:
        for data, place, max_depth_m in (("Hypersim", "Indoor", 20.0), ("VKITTI", "Outdoor", 80.0)):
            # The cards of the original's say Apache-2.0 for all sizes; of the others only this one says anything.
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


HUB_FILES = {entry.repository: entry for entry in (*_relative(), *_metric(), *_encoders())}


def published(file_name: str) -> HubFile | None:
    """The entry whose weights have this file name; None where there is none, or the name says nothing."""
    named = [entry for entry in HUB_FILES.values() if file_name in (entry.file, entry.alias)]
    return named[0] if len(named) == 1 else None


def published_as(file_name: str, encoder: str) -> HubFile | None:
    """The entry whose weights have this file name, where they are of this encoder too; a name alone is soon given."""
    entry = published(file_name)
    return entry if entry and entry.encoder == encoder else None


def is_hub_id(source: str) -> bool:
    """Whether ``source`` may be the id of a model: of the table, or ``owner/name`` without a file's suffix."""
    suffix = Path(source).suffix
    # .pth, but not the .5 of a model-v1.5
    return source in HUB_FILES or bool(
        re.fullmatch(r"[\w.-]+/[\w.-]+", source) and not re.fullmatch(r"\.[A-Za-z]\w*", suffix)
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
        The weights in huggingface_hub's cache, with what belongs beside them; downloaded now (with its progress bar) if
        they were not there.

    Raises:
        CheckpointError: a file is neither in the cache nor can it be fetched.
    """
    folder = "weights" if len(entry.files) == 1 else f"weights/{entry.repository.rpartition('/')[2]}"
    for file in entry.files:
        path = _fetched(entry.repository, file, f"put it into {folder}/ and {naming} {folder}/{entry.file}")
    return path


def fetch_transformers(repository: str, naming: str = "set model.checkpoint:") -> Path:
    """As ``fetch``, of a hub id that is not in the table: a model that somebody wrote with transformers."""
    folder = f"weights/{repository.rpartition('/')[2]}"
    config, _, weights = TRANSFORMERS_FILES
    for file in (config, weights):
        path = _fetched(repository, file, f"put the repository's files into {folder}/ and {naming} {folder}")
    return path


def _fetched(repository: str, file: str, instead: str) -> Path:
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache

    cached = try_to_load_from_cache(repository, file)
    if isinstance(cached, str):
        return Path(cached)
    try:
        # Asked first, because the download repeats a refused connection for half a minute.
        get_hf_file_metadata(hf_hub_url(repository, file))
        return Path(hf_hub_download(repository, file))
    # The hub's client has changed its transport twice, and each has errors of its own.
    except Exception as error:
        raise CheckpointError(
            repository,
            f"{file} is not in the cache and could not be fetched from {constants.ENDPOINT} "
            f"({type(error.__cause__ or error).__name__})",
            f"Download {constants.ENDPOINT}/{repository}/resolve/main/{file} where there is a network, {instead}",
        ) from error
