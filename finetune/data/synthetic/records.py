"""Dataclasses of tensors, or of such dataclasses: rows of one, and several end to end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Record = TypeVar("Record", bound="DataclassInstance")


def rows_on(record: Record, rows: slice, device: str | torch.device) -> Record:
    """These rows of every tensor of a record, on a device."""
    parts = {}
    for field in fields(record):
        value = getattr(record, field.name)
        parts[field.name] = value[rows].to(device) if isinstance(value, Tensor) else rows_on(value, rows, device)
    return replace(record, **parts)


def joined(records: Sequence[Record]) -> Record:
    """One record with all that B frames have in each of these, (B, K, ...) each, one after the other."""
    names = [field.name for field in fields(records[0])]
    return replace(records[0], **{name: torch.cat([getattr(one, name) for one in records], dim=1) for name in names})
