"""Plain values: what YAML and JSON can hold."""

from __future__ import annotations

from typing import TypeAlias

PlainValue: TypeAlias = "bool | int | float | str | list[PlainValue] | dict[str, PlainValue] | None"
