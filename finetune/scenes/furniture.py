"""Pieces of furniture as boxes: what a table is made of, and how large tables are."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

Triple = tuple[float, float, float]


class Part(NamedTuple):
    """One box of a piece whose half width, half depth and height are s; the back of the piece is at y = -s[1].

    The box's center is ``at * s + shift_m`` and its half size ``half * s + add_m``, axis by axis.
    """

    at: Triple
    half: Triple
    shift_m: Triple = (0.0, 0.0, 0.0)
    add_m: Triple = (0.0, 0.0, 0.0)


class Piece(NamedTuple):
    """A kind of furniture.

    Attributes:
        parts: its boxes; none for a ball.
        smallest_m, largest_m: width, depth, height.
        weight: how often it is drawn, against the others.
        carries: whether things may stand on its top.
        walls: how often it stands with its back to a wall.
    """

    parts: tuple[Part, ...]
    smallest_m: Triple
    largest_m: Triple
    weight: float
    carries: bool = False
    walls: float = 0.5


def _legs(top: float) -> tuple[Part, ...]:
    return tuple(
        Part(at=(x, y, top / 2), half=(0, 0, top / 2), shift_m=(-0.04 * x, -0.04 * y, 0), add_m=(0.025, 0.025, 0))
        for x in (-1, 1)
        for y in (-1, 1)
    )


def _board(height: float) -> Part:
    return Part(at=(0, 0, height), half=(1, 1, 0), shift_m=(0, 0, -0.018), add_m=(0, 0, 0.018))


def _side(x: float) -> Part:
    return Part(at=(x, 0, 0.5), half=(0, 1, 0.5), add_m=(0.016, 0, 0))


CABINET = Piece((Part((0, 0, 0.5), (1, 1, 0.5)),), (0.4, 0.35, 0.4), (1.3, 0.6, 1.9), 2.0, carries=True, walls=0.8)
TABLE = Piece((_board(1.0), *_legs(1.0)), (0.7, 0.5, 0.4), (1.7, 0.9, 0.8), 3.0, carries=True, walls=0.4)
CHAIR = Piece(
    (_board(0.5), *_legs(0.5), Part((0, -1, 0.75), (1, 0, 0.25), shift_m=(0, 0.02, 0), add_m=(0, 0.02, 0))),
    (0.4, 0.4, 0.8),
    (0.55, 0.5, 1.05),
    2.0,
    walls=0.2,
)
SHELF = Piece(
    (_side(-1), _side(1), _board(0.06), _board(0.36), _board(0.68), _board(1.0)),
    (0.6, 0.25, 0.9),
    (1.2, 0.4, 2.0),
    1.5,
    carries=True,
    walls=0.9,
)
SOFA = Piece(
    (
        Part((0, 0, 0.24), (1, 1, 0.24)),
        Part((0, -0.78, 0.5), (1, 0.22, 0.5)),
        Part((-0.9, 0, 0.34), (0.1, 1, 0.34)),
        Part((0.9, 0, 0.34), (0.1, 1, 0.34)),
    ),
    (1.2, 0.75, 0.7),
    (2.0, 0.95, 0.95),
    1.0,
    walls=0.7,
)
STACK = Piece(
    (Part((0, 0, 0.3), (1, 1, 0.3)), Part((0.1, -0.1, 0.8), (0.7, 0.7, 0.2))),
    (0.35, 0.35, 0.4),
    (0.8, 0.7, 1.2),
    1.5,
    carries=True,
)
BALL = Piece((), (0.2, 0.2, 0.2), (0.7, 0.7, 0.7), 1.5, walls=0.2)

PIECES = (CABINET, TABLE, CHAIR, SHELF, SOFA, STACK, BALL)
PARTS = max(len(piece.parts) for piece in PIECES)


class Templates(NamedTuple):
    """``PIECES`` as tensors: (kinds, PARTS, 3) each, ``used`` (kinds, PARTS) bool; sizes (kinds, 3)."""

    at: Tensor
    half: Tensor
    shift_m: Tensor
    add_m: Tensor
    used: Tensor
    smallest_m: Tensor
    largest_m: Tensor
    carries: Tensor
    walls: Tensor


def templates() -> Templates:
    """The tensors of ``PIECES``."""
    empty = Part((0, 0, 0), (0, 0, 0))
    rows = [[*piece.parts, *[empty] * (PARTS - len(piece.parts))] for piece in PIECES]
    at, half, shift_m, add_m = (
        torch.tensor([[part[i] for part in row] for row in rows], dtype=torch.float32) for i in range(4)
    )
    return Templates(
        at=at,
        half=half,
        shift_m=shift_m,
        add_m=add_m,
        used=torch.tensor([[part is not empty for part in row] for row in rows]),
        smallest_m=torch.tensor([piece.smallest_m for piece in PIECES]),
        largest_m=torch.tensor([piece.largest_m for piece in PIECES]),
        carries=torch.tensor([piece.carries for piece in PIECES]),
        walls=torch.tensor([piece.walls for piece in PIECES]),
    )
