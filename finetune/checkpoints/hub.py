"""The official weights on the Hugging Face hub: what each id is, and how to fetch its file."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from finetune.errors import CheckpointError


@dataclass(frozen=True, kw_only=True)
class HubFile:
    """One published weights file.

    Attributes:
        repository: hub id.
        file: its name there.
        kind: ``relative`` or ``metric``.
        encoder: a key of ``ENCODERS``.
        max_depth_m: of a metric one, meters.
        license: as its model card has it.
    """

    repository: str
    file: str
    kind: str
    encoder: str
    max_depth_m: float | None
    license: str


def _hub_files() -> list[HubFile]:
    files = []
    for size, encoder in (("Small", "vits"), ("Base", "vitb"), ("Large", "vitl")):
        for data, max_depth_m in (("", None), ("Hypersim", 20.0), ("VKITTI", 80.0)):
            files.append(
                HubFile(
                    repository=f"depth-anything/Depth-Anything-V2-{f'Metric-{data}-' if data else ''}{size}",
                    file=f"depth_anything_v2_{f'metric_{data.lower()}_' if data else ''}{encoder}.pth",
                    kind="metric" if data else "relative",
                    encoder=encoder,
                    max_depth_m=max_depth_m,
                    license="Apache-2.0" if size == "Small" else "CC-BY-NC-4.0",
                )
            )
    return files


HUB_FILES = {entry.repository: entry for entry in _hub_files()}


def closest_id(source: str) -> str | None:
    """The hub id of the table that ``source`` was probably meant to be."""
    by_lower_case = {repository.lower(): repository for repository in HUB_FILES}
    matches = get_close_matches(source.lower().removesuffix("-hf"), by_lower_case, n=1, cutoff=0.8)
    return by_lower_case[matches[0]] if matches else None


def fetch(entry: HubFile, naming: str = "set model.checkpoint:") -> Path:
    """
    Args:
        entry: one of ``HUB_FILES``.
        naming: how the error says to name a file instead.

    Returns:
        The file in huggingface_hub's cache, downloaded now (with its progress bar) if it was not there.

    Raises:
        CheckpointError: it is neither in the cache nor can it be fetched.
    """
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache

    cached = try_to_load_from_cache(entry.repository, entry.file)
    if isinstance(cached, str):
        return Path(cached)
    try:
        # Asked first, because the download repeats a refused connection for half a minute.
        get_hf_file_metadata(hf_hub_url(entry.repository, entry.file))
        return Path(hf_hub_download(entry.repository, entry.file))
    # The hub's client has changed its transport twice, and each has errors of its own.
    except Exception as error:
        raise CheckpointError(
            entry.repository,
            f"{entry.file} is not in the cache and could not be fetched from {constants.ENDPOINT} "
            f"({type(error.__cause__ or error).__name__})",
            f"Download {constants.ENDPOINT}/{entry.repository}/resolve/main/{entry.file} where there is a network, "
            f"put it into weights/ and {naming} weights/{entry.file}",
        ) from error
