"""What every weights format provides."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Description:
    """What a weights file, or the files next to it, say about it.

    Attributes:
        says: plain values by the names of our own metadata: ``kind`` (``relative``, ``relative_depth``, ``metric`` or
            ``encoder``), ``max_depth_m``, ``activation``, ``checkpoint_version``, ``position_offset``,
            ``preprocessing``, ``base``, ...; empty where there are none.
        file: the file that has, or would have, these values, as the user can open it.
        tensors: by our names, instead of the file's own.
        notes: sentences to print.
    """

    says: dict[str, object]
    file: str
    tensors: dict[str, Tensor] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


class Format(Protocol):
    """A weights format: one file in this folder, one line in ``registry.CHECKPOINTS``, one test.

    The class itself is used, never an object of it. Tensors are only renamed, fused and split: their values stay.

    Attributes:
        files: names of its weights in a folder; the first that exists counts.
    """

    files: tuple[str, ...]

    @staticmethod
    def recognises(names: Iterable[str], metadata: Mapping[str, object]) -> bool:
        """Whether a file with these tensor names and this metadata of its own is of this format."""
        ...

    @staticmethod
    def to_ours(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors by our names; a name of another format stays as it is."""
        ...

    @staticmethod
    def from_ours(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors of a whole ``DepthModel.state_dict()`` by their names."""
        ...

    @staticmethod
    def description(path: Path, source: str, metadata: Mapping[str, object], sha256: str) -> Description:
        """
        Args:
            path: the weights file.
            source: what the user wrote.
            metadata: of the file itself.
            sha256: of the file.

        Raises:
            CheckpointError: a file next to it is broken, or says that it is another network.
        """
        ...
