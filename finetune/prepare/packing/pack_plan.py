"""Which entries of a recipe are packed, how, and under which names; equal ones once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal

import finetune
from finetune.data.packing.frames import ImageFormat
from finetune.data.reader import Reader, list_sources
from finetune.prepare.packing.encode_frames import PackFormat
from finetune.recipe.schema import DataEntry, Recipe
from finetune.recipe.validate import plain_values

PackSize = Literal["working", "full"]
# Keys of an entry that are the run's, not the reader's.
OF_RUN = ("weight", "out_of_range", "loss")


@dataclass(frozen=True, kw_only=True)
class PackChoice:
    """What a user chooses for the frames of ``data.train``.

    Attributes:
        size: ``working``: at most as large as the network sees them; ``full``: as they are.
        images: ``jpeg``, or ``png``, which keeps every bit.
        quality: of JPEG.
    """

    size: PackSize = "working"
    images: ImageFormat = "jpeg"
    quality: int = 90


@dataclass(frozen=True, kw_only=True)
class PlannedEntry:
    """An entry to pack.

    Attributes:
        name: of its folder.
        keys: of the recipe that it is, such as ``data.train.0``.
        reader: of its frames.
        form: how they are packed.
        request: what decides its bytes, as JSON takes it.
    """

    name: str
    keys: tuple[str, ...]
    reader: Reader
    form: PackFormat
    request: Mapping[str, object]

    @property
    def pack_id(self) -> str:
        """SHA-256 of the request, by which a shard says what it belongs to."""
        return _digest(self.request)


def plan_packs(recipe: Recipe, choice: PackChoice) -> list[PlannedEntry]:
    """
    The entries of a recipe, in its order; two that would give the same bytes are one.

    Raises:
        FileFault: the frames of an entry cannot be listed.
    """
    planned: dict[str, PlannedEntry] = {}
    for part, entries in (("train", recipe.data.train), ("val", recipe.data.val)):
        form = _choose_form(recipe, choice, trains=part == "train")
        for i, entry in enumerate(entries):
            key = f"data.{part}.{i}"
            request = _describe_entry(recipe, entry, form)
            same = planned.get(_digest(request))
            if same is None:
                found = PlannedEntry(name=f"{part}_{i}", keys=(key,), reader=entry.source, form=form, request=request)
            else:
                found = replace(same, keys=(*same.keys, key))
            planned[_digest(request)] = found
    return list(planned.values())


def _choose_form(recipe: Recipe, choice: PackChoice, *, trains: bool) -> PackFormat:
    # Frames that are scored, or choose best/, stay as they are: anything else would change the tables.
    return PackFormat(
        input_size=recipe.data.input_size,
        zoom=max(1.0, recipe.augment.zoom[1]),
        reduces=trains and choice.size == "working",
        images=choice.images if trains else "png",
        quality=choice.quality,
        keeps_faults=trains and recipe.data.on_bad_sample == "skip",
        decode=recipe.data.decode,
    )


def _describe_entry(recipe: Recipe, entry: DataEntry, form: PackFormat) -> dict[str, object]:
    levels = recipe.data.image_levels
    described = asdict(form)
    if form.decode == "full":
        del described["decode"]  # packs of earlier versions have no such key
    if not form.reduces:
        # Frames that keep their size are the same for every recipe, unless it says which of them are decoded smaller.
        del described["zoom"]
        if form.decode == "full":
            del described["input_size"]
    if form.images == "png":
        del described["quality"]
    return {
        "version": finetune.__version__,
        "entry": {name: value for name, value in plain_values(entry).items() if name not in OF_RUN},
        "frames": len(entry.source),
        "names": _digest(list_sources(entry.source)),
        "image_levels": None if levels is None else levels.to_mapping(),
        "form": described,
    }


def _digest(content: Mapping[str, object] | Sequence[str]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
