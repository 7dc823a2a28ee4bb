"""Take rows of dataclasses of tensors, and join several of them; they may be nested."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Record = TypeVar("Record", bound="DataclassInstance")


def take_rows(record: Record, rows: slice, device: str | torch.device) -> Record:
    """The record with these rows of every tensor, on a device."""
    parts = {}
    for field in fields(record):
        value = getattr(record, field.name)
        parts[field.name] = value[rows].to(device) if isinstance(value, Tensor) else take_rows(value, rows, device)
    return replace(record, **parts)


def join_records(records: Sequence[Record]) -> Record:
    """One record whose tensors are those of the given records, (B, K, ...) each, joined along K."""
    names = [field.name for field in fields(records[0])]
    return replace(
        records[0], **{name: torch.cat([getattr(record, name) for record in records], dim=1) for name in names}
    )
