"""Undoes what training scripts put around weights: mappings in mappings, prefixes of wrapper classes, averages."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

# DistributedDataParallel's, torch.compile's, and that of a layer which peft has put an adapter beside.
WRAPPERS = {"module", "_orig_mod", "base_layer"}
# What peft puts before all names; merged or not, what it wraps is called model.
PEFT = "base_model.model."
# How deep mappings and prefixes are searched; torch.save of a trainer's state is 3 deep.
_DEPTH = 8
_OF_OPTIMIZERS = re.compile(r"optim|scheduler|scaler", re.IGNORECASE)
_AVERAGED = re.compile(r"(^|[._])(ema|swa|shadow|averaged?|moving)([._]|$)", re.IGNORECASE)
# What averages and trainers count beside the weights.
_COUNTERS = {"n_averaged", "initted", "step", "num_updates", "decay", "epoch", "global_step"}


@dataclass(frozen=True, kw_only=True)
class Network:
    """The weights of one network in a file.

    Attributes:
        place: what stands before its names, such as ``state_dict.model``; "" where nothing does.
        tensors: by their plain names.
        format: what recognised them.
    """

    place: str
    tensors: dict[str, Any]
    format: str

    @property
    def averaged(self) -> bool:
        """Whether its place says that it is a moving average."""
        return bool(_AVERAGED.search(self.place))


def tensors_in(content: Mapping[Any, Any], is_tensor: Callable[[Any], bool]) -> tuple[dict[str, Any], bool]:
    """
    Args:
        content: what was in the file. A key that is no string becomes one, so that it can be named.
        is_tensor: whether a value is one.

    Returns:
        All tensors of it but the optimizer's, by the keys that lead to them joined with dots, without the names of
        wrappers; and whether a mapping in the mapping holds them, as in a training checkpoint.
    """
    found: dict[str, Any] = {}
    nested = False
    seen: set[int] = set()  # a mapping may hold itself

    def walk(mapping: Mapping[Any, Any], before: tuple[str, ...]) -> None:
        nonlocal nested
        seen.add(id(mapping))
        for key, value in mapping.items():
            path = (*before, str(key))
            if is_tensor(value):
                nested = nested or bool(before)
                found.setdefault(_plain(".".join(path)), value)
            elif (
                isinstance(value, Mapping)
                and id(value) not in seen
                and len(path) < _DEPTH
                and _may_hold(path[-1], value)
            ):
                walk(value, path)

    if "param_groups" not in content:  # an optimizer's own state
        walk(content, ())
    return {name: value for name, value in found.items() if name.rpartition(".")[2] not in _COUNTERS}, nested


def nameless_averages(content: Mapping[Any, Any], is_tensor: Callable[[Any], bool]) -> list[str]:
    """
    Returns:
        The places of lists of tensors that are called an average, as torch_ema writes them: without names nothing says
        which tensor is which.
    """
    found: list[str] = []
    seen: set[int] = set()

    def walk(mapping: Mapping[Any, Any], before: tuple[str, ...]) -> None:
        seen.add(id(mapping))
        for key, value in mapping.items():
            path = (*before, str(key))
            if isinstance(value, list | tuple):
                if any(is_tensor(one) for one in value) and _AVERAGED.search(".".join(path)):
                    found.append(".".join(path))
            elif (
                isinstance(value, Mapping)
                and id(value) not in seen
                and len(path) < _DEPTH
                and _may_hold(path[-1], value)
            ):
                walk(value, path)

    walk(content, ())
    return found


def networks_in(tensors: Mapping[str, Any], format_of: Callable[[Iterable[str]], str | None]) -> list[Network]:
    """
    Args:
        tensors: of ``tensors_in``.
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


def _may_hold(key: str, value: Mapping[Any, Any]) -> bool:
    return not _OF_OPTIMIZERS.search(key) and "param_groups" not in value


def _plain(name: str) -> str:
    """The name without its wrappers, however they lie inside each other."""
    return ".".join(part for part in name.split(".") if part not in WRAPPERS).replace(PEFT, "")
