"""Which of the networks in a weights file is meant, and what else is in the file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from finetune.models.checkpoints.depth_anything_3 import OF_SEVERAL_VIEWS
from finetune.models.checkpoints.native import FORMAT, VERSION
from finetune.models.checkpoints.unwrap import (
    Content,
    FoundTensors,
    Network,
    find_networks,
    find_networks_in_parts,
)
from finetune.utils import registry
from finetune.utils.errors import CheckpointError, shown

# Keys of what torch.optim gives, alone or under a name.
_OF_OPTIMIZERS = frozenset(("param_groups", "optimizer", "optimizer_state_dict"))
_ENCODERS_ALONE = frozenset(("dinov2", "dinov2_transformers"))
# What is next to an encoder that was trained for something else than depth.
_HEADS = ("head", "classifier", "prototypes")


def select_network(
    tensors: FoundTensors, content: Content, metadata: Mapping[str, object], source: str
) -> tuple[Network, tuple[str, ...]]:
    """
    Args:
        tensors: of ``find_tensors``.
        content: what they were found in.
        metadata: of the file itself.
        source: what the user wrote.

    Returns:
        The network of the file, and sentences about what else is in it.

    Raises:
        CheckpointError: there is none, or several and nothing says which is meant.
    """

    if any(name.endswith(OF_SEVERAL_VIEWS) for name in tensors.by_name):
        raise CheckpointError(
            source,
            "is a Depth Anything 3 for several views, whose network is another one",
            "Use depth-anything/DA3MONO-LARGE or depth-anything/DA3METRIC-LARGE",
        )

    def format_of(names: Iterable[str]) -> str | None:
        names = list(names)
        known = registry.CHECKPOINTS
        return next((name for name in known if registry.find(known, name).recognises(names, metadata)), None)

    found = find_networks(tensors.by_name, format_of)
    # Next to whole networks an encoder is a part of something.
    whole = [network for network in found if network.format not in _ENCODERS_ALONE]
    found = whole or find_networks_in_parts(tensors.by_name, format_of) or found
    if not found:
        raise _unknown(tensors.by_name, content, source)
    averages = [network for network in found if network.averaged]
    network, *others = averages or found
    if any(not _same(network, other) for other in others):
        places = " and ".join(candidate.place for candidate in (network, *others))
        raise CheckpointError(
            source,
            f"holds {1 + len(others)} networks ({places}), and nothing says which is meant",
            "Save the one you mean alone: torch.save({name: tensor, ...}, path)",
        )
    _require_known_version(metadata, source)
    choice = _choice(network, [other for other in found if not other.averaged], tensors.nameless_averages, source)
    return network, (*choice, *_left_out(tensors.by_name, found, network, source))


def _choice(network: Network, raw: Sequence[Network], nameless: Sequence[str], source: str) -> tuple[str, ...]:
    """What was chosen out of averaged weights and those of the last step, where a file has both."""
    if network.averaged and raw:
        others = " and ".join(other.place or "the top" for other in raw)
        return (f"{source}: using the averaged weights ({network.place}), not those of {others}",)
    if nameless and not network.averaged:
        return (
            f"{source}: using the weights of {network.place or 'the top'}, not the averaged ones, which are a list "
            f"without names ({nameless[0]})",
        )
    return ()


def _same(network: Network, other: Network) -> bool:
    return network.tensors.keys() == other.tensors.keys() and all(
        tensor.shape == other.tensors[name].shape and torch.equal(tensor, other.tensors[name])
        for name, tensor in network.tensors.items()
    )


def _left_out(
    tensors: Mapping[str, Tensor], found: Sequence[Network], network: Network, source: str
) -> tuple[str, ...]:
    """
    Raises:
        CheckpointError: the encoder is only part of an unknown network, and must not be taken for the whole.
    """
    places = tuple(f"{place}." for other in found for place in other.places)
    left = [] if not network.place else [name for name in tensors if not name.startswith(places)]
    if not left:
        return ()
    names = f"{', '.join(left[:3])}{', ...' if len(left) > 3 else ''}"
    if network.format in _ENCODERS_ALONE and not all(any(head in name for head in _HEADS) for name in left):
        raise CheckpointError(
            source,
            f"holds an encoder of DINOv2 ({network.place}) inside another network ({names})",
            "Use a Depth Anything file, or save that encoder alone to train a decoder on it",
        )
    return (f"{source}: using what is below {network.place}; {len(left)} other tensors are left out ({names})",)


def _unknown(tensors: Mapping[str, Tensor], content: Content, source: str) -> CheckpointError:
    """What is wrong with a file that holds no network of a known format."""
    if any(name.startswith("encoder.") or ".encoder.blocks." in name for name in tensors):
        return CheckpointError(
            source, "has our tensors but does not say what they are", "Use best/model.safetensors of the run folder"
        )
    if not tensors and _OF_OPTIMIZERS & content.keys():
        return CheckpointError(
            source,
            "is the state of an optimizer, without the weights of a model",
            "Name the file with the model's weights",
        )
    names = ", ".join(list(tensors)[:3]) or "no tensors"
    return CheckpointError(
        source,
        f"has {len(tensors)} tensors ({names}, ...), the names of no known format",
        "Use a Depth Anything file, official or of transformers, a DINOv2 encoder, or one of ours",
    )


def _require_known_version(metadata: Mapping[str, object], source: str) -> None:
    if metadata.get("format") == FORMAT and metadata.get("version") != VERSION:
        raise CheckpointError(
            source,
            f"is version {shown(metadata.get('version'))} of our format, this program reads version {VERSION}",
            "Use the program that wrote it, or export it from there as official",
        )
