"""Undoes what training scripts put around weights: mappings in mappings, prefixes of wrapper classes, averages."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

Content = Mapping[Any, object]  # what a weights file holds; torch.save takes keys of any kind
# What DistributedDataParallel and torch.compile put before names, and peft before a layer that it gave an adapter.
WRAPPERS = {"module", "_orig_mod", "base_layer"}
# The prefix that peft adds to all names.
PEFT = "base_model.model."
# How deep mappings and prefixes are searched; torch.save of a trainer's state is 3 deep.
_DEPTH = 8
_OF_OPTIMIZERS = re.compile(r"optim|scheduler|scaler", re.IGNORECASE)
_AVERAGED = re.compile(r"(^|[._])(ema|swa|shadow|averaged?|moving)([._]|$)", re.IGNORECASE)
# Part of the official network -> a name that it has, and no other part.
_NAME_OF_PART = {"pretrained": "patch_embed.proj.weight", "depth_head": "scratch.output_conv1.weight"}
# Counters that averages and trainers store next to the weights.
_COUNTERS = {"n_averaged", "initted", "step", "num_updates", "decay", "epoch", "global_step"}


@dataclass(frozen=True, kw_only=True)
class FoundTensors:
    """
    The tensors of a file, however deep.

    Attributes:
        by_name: all but the optimizer's, by the keys that lead to them joined with dots, without the names of wrappers.
        nested: whether a mapping in the mapping holds them, as in a training checkpoint.
        nameless_averages: places of lists of tensors that are called an average, as torch_ema writes them: without
            names nothing says which tensor is which.
    """

    by_name: dict[str, Tensor]
    nested: bool
    nameless_averages: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Network:
    """The weights of one network in a file.

    Attributes:
        place: what precedes its names, such as ``state_dict.model``; "" where nothing does.
        tensors: by their plain names.
        format: the format that recognises them.
        parts: the places of its parts, where a file keeps them apart.
    """

    place: str
    tensors: dict[str, Tensor]
    format: str
    parts: tuple[str, ...] = ()

    @property
    def places(self) -> tuple[str, ...]:
        """All that precedes its names in the file."""
        return self.parts or (self.place,)

    @property
    def averaged(self) -> bool:
        """Whether its place says that it is a moving average."""
        return bool(_AVERAGED.search(self.place))


def find_tensors(content: Content) -> FoundTensors:
    """
    Args:
        content: what was in the file. A key that is no string becomes one, so that it can be named.
    """
    by_name: dict[str, Tensor] = {}
    nested = False
    nameless: list[str] = []
    for keys, value in _leaves(content):
        if isinstance(value, Tensor):
            nested = nested or len(keys) > 1
            by_name.setdefault(_plain(".".join(keys)), value)
        elif isinstance(value, list | tuple) and any(isinstance(item, Tensor) for item in value):
            place = ".".join(keys)
            nameless += [place] if _AVERAGED.search(place) else []
    weights = {name: tensor for name, tensor in by_name.items() if name.rpartition(".")[2] not in _COUNTERS}
    return FoundTensors(by_name=weights, nested=nested, nameless_averages=tuple(nameless))


def _leaves(content: Content) -> Iterator[tuple[tuple[str, ...], object]]:
    """Whatever is no mapping, with the keys that lead to it; nothing of an optimizer."""
    seen: set[int] = set()  # a mapping may hold itself

    def walk(mapping: Content, above: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], object]]:
        seen.add(id(mapping))
        for key, value in mapping.items():
            keys = (*above, str(key))
            if not isinstance(value, Mapping):
                yield keys, value
            elif id(value) not in seen and len(keys) < _DEPTH and _may_hold(keys[-1], value):
                yield from walk(value, keys)

    if "param_groups" not in content:  # an optimizer's own state
        yield from walk(content, ())


def find_networks(tensors: Mapping[str, Tensor], format_of: Callable[[Iterable[str]], str | None]) -> list[Network]:
    """
    Args:
        tensors: of ``find_tensors``.
        format_of: the format that has such names, if there is one.

    Returns:
        Every network of a known format: the names below the shortest prefix that leaves such names.
    """
    found: list[Network] = []

    def search(names: Mapping[str, str], place: str, depth: int) -> None:
        known = format_of(names)
        if known is not None:
            tensors_of = {plain: tensors[name] for plain, name in names.items()}
            found.append(Network(place=place, tensors=tensors_of, format=known))
            return
        below: dict[str, dict[str, str]] = {}
        for plain, name in names.items():
            first, dot, rest = plain.partition(".")
            if dot:
                below.setdefault(first, {})[rest] = name
        for first, inner in below.items() if depth < _DEPTH else ():
            search(inner, f"{place}.{first}" if place else first, depth + 1)

    search({name: name for name in tensors}, "", 0)
    return found


def find_networks_in_parts(
    tensors: Mapping[str, Tensor], format_of: Callable[[Iterable[str]], str | None]
) -> list[Network]:
    """
    Find networks whose encoder and decoder a script saved under names of its own, as in ``{"encoder": ..., "decoder":
    ...}``. What is below each is named as in the official network.

    Args:
        tensors: of ``find_tensors``.
        format_of: the format that has such names, if there is one.

    Returns:
        At most one network of averages and one of others: where a file has two encoders, nothing says which belongs to
        which decoder.
    """
    found = []
    for averaged in (False, True):
        parts = [_places_before(tensors, name, averaged) for name in _NAME_OF_PART.values()]
        if any(len(places) != 1 for places in parts):
            continue
        places = [place for (place,) in parts]
        tensors_of = {
            f"{part}.{name.removeprefix(place + '.')}": tensor
            for name, tensor in tensors.items()
            for part, place in zip(_NAME_OF_PART, places, strict=True)
            if name.startswith(f"{place}.")
        }
        known = format_of(tensors_of)
        if known is not None:
            place = " and ".join(places)
            found.append(Network(place=place, tensors=tensors_of, format=known, parts=tuple(places)))
    return found


def _places_before(names: Iterable[str], last: str, averaged: bool) -> list[str]:
    """What precedes the names that end with ``last``, where it is an average or where it is none."""
    ends = f".{last}"
    places = [name.removesuffix(ends) for name in names if name.endswith(ends)]
    return [place for place in places if bool(_AVERAGED.search(place)) == averaged]


def _may_hold(key: str, value: Content) -> bool:
    return not _OF_OPTIMIZERS.search(key) and "param_groups" not in value


def _plain(name: str) -> str:
    """The name without its wrappers, however they are nested."""
    return ".".join(part for part in name.split(".") if part not in WRAPPERS).replace(PEFT, "")
