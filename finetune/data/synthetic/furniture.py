"""Pieces of furniture, trees and houses: the boxes, cylinders and balls that they consist of, and their sizes."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

Triple = tuple[float, float, float]
BOX, CYLINDER, BALL = range(3)  # in the order of ``Solids.shapes``


class Part(NamedTuple):
    """One body of a piece whose half width, half depth and height are s; the back of the piece is at y = -s[1].

    The body's center is ``at * s + shift_m`` and its half size ``half * s + add_m``, axis by axis.

    Attributes:
        second: whether it has the piece's second material.
    """

    at: Triple
    half: Triple
    shift_m: Triple = (0.0, 0.0, 0.0)
    add_m: Triple = (0.0, 0.0, 0.0)
    shape: int = BOX
    second: bool = False


class Piece(NamedTuple):
    """A kind of piece.

    Attributes:
        parts: its bodies.
        smallest_m, largest_m: width, depth, height.
        indoors, outdoors: how often it is drawn there, relative to the others.
        carries: whether there may be things on its top.
        walls: in a room, the share of these pieces whose back is to a wall.
        round: whether it is as deep as it is wide.
    """

    parts: tuple[Part, ...]
    smallest_m: Triple
    largest_m: Triple
    indoors: float = 0.0
    outdoors: float = 0.0
    carries: bool = False
    walls: float = 0.5
    round: bool = False


def _make_legs(top: float, thick_m: float = 0.025, shape: int = BOX) -> tuple[Part, ...]:
    inset, add = 1.6 * thick_m, (thick_m, thick_m, 0.0)
    return tuple(
        Part((x, y, top / 2), (0, 0, top / 2), shift_m=(-inset * x, -inset * y, 0), add_m=add, shape=shape, second=True)
        for x in (-1, 1)
        for y in (-1, 1)
    )


def _make_board(height: float, half_m: float = 0.018, shape: int = BOX) -> Part:
    return Part((0, 0, height), (1, 1, 0), shift_m=(0, 0, -half_m), add_m=(0, 0, half_m), shape=shape)


def _make_side(x: float) -> Part:
    return Part((x, 0, 0.5), (0, 1, 0.5), add_m=(0.016, 0, 0))


def _make_post(x: float, y: float, radius_m: float = 0.02) -> Part:
    return Part((x, y, 0.5), (0, 0, 0.5), add_m=(radius_m, radius_m, 0), shape=CYLINDER)


def _make_crown(x: float, y: float, z: float, wide: float, high: float) -> Part:
    return Part((x, y, z), (wide, wide, high), shape=BALL, second=True)


CABINET = Piece((Part((0, 0, 0.5), (1, 1, 0.5)),), (0.4, 0.35, 0.4), (1.3, 0.6, 1.9), 1.5, carries=True, walls=0.8)
COUNTER = Piece(
    (
        Part((0, -0.04, 0.5), (0.99, 0.92, 0.44)),
        Part((0, 0, 0.97), (1, 1, 0.03), second=True),
        Part((0, -0.1, 0.04), (1, 0.86, 0.04), second=True),
    ),
    (1.2, 0.5, 0.8),
    (3.2, 0.7, 1.0),
    1.5,
    carries=True,
    walls=0.9,
)
TABLE = Piece((_make_board(1.0), *_make_legs(1.0)), (0.7, 0.5, 0.4), (1.9, 1.0, 0.8), 3.0, 0.3, carries=True, walls=0.3)
DESK = Piece(
    (_make_board(1.0), _make_side(-0.97), _make_side(0.97), Part((0, -0.9, 0.7), (0.95, 0.03, 0.25), second=True)),
    (1.0, 0.6, 0.68),
    (1.8, 0.85, 0.8),
    1.5,
    carries=True,
    walls=0.6,
)
ROUND_TABLE = Piece(
    (
        _make_board(1.0, shape=CYLINDER),
        Part((0, 0, 0.5), (0, 0, 0.48), add_m=(0.035, 0.035, 0), shape=CYLINDER, second=True),
        Part((0, 0, 0.0), (0.5, 0.5, 0.0), shift_m=(0, 0, 0.015), add_m=(0, 0, 0.015), shape=CYLINDER, second=True),
    ),
    (0.5, 0.5, 0.45),
    (1.2, 1.2, 0.8),
    1.0,
    carries=True,
    walls=0.1,
    round=True,
)
CHAIR = Piece(
    (_make_board(0.5), *_make_legs(0.5), Part((0, -1, 0.75), (1, 0, 0.25), shift_m=(0, 0.02, 0), add_m=(0, 0.02, 0))),
    (0.4, 0.4, 0.8),
    (0.55, 0.5, 1.05),
    1.5,
    walls=0.2,
)
SLATTED_CHAIR = Piece(
    (
        _make_board(0.48),
        *_make_legs(0.48),
        Part((-0.94, -0.94, 0.75), (0.06, 0.06, 0.25), second=True),
        Part((0.94, -0.94, 0.75), (0.06, 0.06, 0.25), second=True),
        Part((0, -0.94, 0.95), (0.9, 0.05, 0.05)),
        Part((0, -0.94, 0.78), (0.9, 0.04, 0.04)),
        Part((0, -0.94, 0.64), (0.9, 0.04, 0.04)),
    ),
    (0.4, 0.4, 0.8),
    (0.55, 0.5, 1.0),
    1.2,
    walls=0.2,
)
OFFICE_CHAIR = Piece(
    (
        Part((0, 0, 0.48), (0.85, 0.85, 0.04)),
        Part((0, 0, 0.25), (0, 0, 0.22), add_m=(0.03, 0.03, 0), shape=CYLINDER, second=True),
        Part((0, 0, 0.05), (1, 0.08, 0.025), second=True),
        Part((0, 0, 0.05), (0.08, 1, 0.025), second=True),
        Part((0, -0.85, 0.76), (0.75, 0.09, 0.24)),
    ),
    (0.5, 0.5, 0.85),
    (0.7, 0.7, 1.15),
    1.2,
    walls=0.2,
    round=True,
)
STOOL = Piece(
    (_make_board(1.0, 0.02, CYLINDER), *_make_legs(1.0, 0.018, CYLINDER)),
    (0.3, 0.3, 0.4),
    (0.42, 0.42, 0.8),
    0.8,
    carries=True,
    walls=0.2,
    round=True,
)
SHELF = Piece(
    (_make_side(-1), _make_side(1), _make_board(0.06), _make_board(0.36), _make_board(0.68), _make_board(1.0)),
    (0.6, 0.25, 0.9),
    (1.2, 0.4, 2.1),
    1.0,
    carries=True,
    walls=0.9,
)
BOOKCASE = Piece(
    (
        _make_side(-1),
        _make_side(1),
        *(_make_board(height) for height in (0.04, 0.28, 0.52, 0.76, 1.0)),
        *(Part((0, -0.2, height), (0.95, 0.6, 0.105), second=True) for height in (0.155, 0.39, 0.63)),
        Part((-0.3, -0.2, 0.86), (0.6, 0.55, 0.09), second=True),
    ),
    (0.6, 0.25, 1.2),
    (1.4, 0.4, 2.2),
    1.0,
    carries=True,
    walls=0.95,
)
RACK = Piece(
    (
        *(_make_post(x, y) for x in (-1, 1) for y in (-1, 1)),
        *(_make_board(height, 0.01) for height in (0.1, 0.4, 0.7, 0.98)),
    ),
    (0.6, 0.35, 1.0),
    (1.3, 0.5, 2.0),
    0.8,
    carries=True,
    walls=0.7,
)
SOFA = Piece(
    (
        Part((0, 0, 0.24), (1, 1, 0.24)),
        Part((0, -0.78, 0.5), (1, 0.22, 0.5)),
        Part((-0.9, 0, 0.34), (0.1, 1, 0.34)),
        Part((0.9, 0, 0.34), (0.1, 1, 0.34)),
    ),
    (1.0, 0.75, 0.7),
    (2.2, 0.95, 0.95),
    1.0,
    walls=0.7,
)
BED = Piece(
    (
        Part((0, 0, 0.3), (1, 1, 0.25)),
        Part((0, -0.97, 0.5), (1, 0.03, 0.5), second=True),
        Part((-0.5, -0.72, 0.6), (0.35, 0.16, 0.08), shape=BALL, second=True),
        Part((0.5, -0.72, 0.6), (0.35, 0.16, 0.08), shape=BALL, second=True),
    ),
    (0.9, 1.9, 0.6),
    (1.8, 2.1, 1.0),
    0.5,
    walls=0.9,
)
STACK = Piece(
    (Part((0, 0, 0.3), (1, 1, 0.3)), Part((0.1, -0.1, 0.8), (0.7, 0.7, 0.2), second=True)),
    (0.3, 0.3, 0.3),
    (0.8, 0.7, 1.2),
    1.5,
    1.0,
    carries=True,
)
BIN = Piece(
    (Part((0, 0, 0.5), (1, 1, 0.5), shape=CYLINDER),), (0.22, 0.22, 0.28), (0.5, 0.5, 0.9), 1.0, 0.5, round=True
)
BALL_PIECE = Piece(
    (Part((0, 0, 0.5), (1, 1, 0.5), shape=BALL),), (0.15, 0.15, 0.15), (0.7, 0.7, 0.7), 0.8, 0.3, walls=0.2, round=True
)
LAMP = Piece(
    (
        Part((0, 0, 0.5), (0, 0, 0.5), add_m=(0.015, 0.015, 0), shape=CYLINDER),
        Part((0, 0, 0.88), (1, 1, 0.12), shape=CYLINDER, second=True),
        Part((0, 0, 0.01), (0.7, 0.7, 0.01), shape=CYLINDER),
    ),
    (0.25, 0.25, 1.2),
    (0.45, 0.45, 1.8),
    0.7,
    walls=0.5,
    round=True,
)
PLANT = Piece(
    (
        Part((0, 0, 0.15), (0.6, 0.6, 0.15), shape=CYLINDER),
        _make_crown(0.0, 0.0, 0.6, 0.8, 0.3),
        _make_crown(0.4, 0.3, 0.75, 0.6, 0.22),
        _make_crown(-0.4, -0.1, 0.8, 0.55, 0.2),
    ),
    (0.3, 0.3, 0.5),
    (0.7, 0.7, 1.7),
    0.8,
    0.5,
    round=True,
)
MACHINE = Piece(
    (
        Part((0, 0, 0.16), (1, 0.22, 0.05)),
        Part((0, 0, 0.16), (0.22, 1, 0.05)),
        Part((0, 0, 0.55), (0, 0, 0.45), add_m=(0.07, 0.07, 0), shape=CYLINDER),
        *(
            Part((x, y, 0.07), (0, 0, 0.07), add_m=(0.04, 0.04, 0), shape=CYLINDER, second=True)
            for x, y in ((0.9, 0), (-0.9, 0), (0, 0.9), (0, -0.9))
        ),
        Part((0.25, 0, 0.75), (0.3, 0.25, 0.12), second=True),
    ),
    (0.5, 0.5, 0.6),
    (1.0, 1.0, 1.5),
    0.7,
    walls=0.1,
    round=True,
)
WHITEBOARD = Piece(
    (
        Part((0, 0, 0.68), (1, 0.08, 0.3)),
        Part((-0.9, 0, 0.3), (0.02, 0.15, 0.3), second=True),
        Part((0.9, 0, 0.3), (0.02, 0.15, 0.3), second=True),
        Part((-0.9, 0, 0.03), (0.04, 1, 0.03), second=True),
        Part((0.9, 0, 0.03), (0.04, 1, 0.03), second=True),
    ),
    (0.9, 0.4, 1.3),
    (1.8, 0.6, 1.9),
    0.7,
    walls=0.4,
)
PARTITION = Piece((Part((0, 0, 0.5), (1, 1, 0.5)),), (0.8, 0.05, 1.0), (2.5, 0.3, 2.6), 0.9, 0.0, walls=0.1)
COLUMN = Piece(
    (Part((0, 0, 0.5), (1, 1, 0.5), shape=CYLINDER),),
    (0.15, 0.15, 2.0),
    (0.5, 0.5, 4.0),
    0.5,
    0.4,
    walls=0.1,
    round=True,
)

HOUSE = Piece(
    (
        Part((0, 0, 0.48), (1, 1, 0.48)),
        Part((0, 0, 0.98), (1.03, 1.03, 0.02), second=True),
        Part((0.3, 1, 0.12), (0.08, 0.01, 0.12), second=True),
    ),
    (5.0, 5.0, 3.0),
    (22.0, 14.0, 16.0),
    outdoors=2.2,
)
TREE = Piece(
    (
        Part((0, 0, 0.25), (0, 0, 0.25), add_m=(0.14, 0.14, 0), shape=CYLINDER),
        _make_crown(0.0, 0.0, 0.65, 0.9, 0.33),
        _make_crown(0.35, 0.25, 0.55, 0.6, 0.2),
        _make_crown(-0.4, -0.1, 0.72, 0.55, 0.22),
    ),
    (1.5, 1.5, 3.0),
    (5.0, 5.0, 9.0),
    outdoors=2.5,
    round=True,
)
BUSH = Piece(
    (_make_crown(0, 0, 0.45, 0.9, 0.5), _make_crown(0.4, -0.2, 0.35, 0.6, 0.38)),
    (0.6, 0.6, 0.5),
    (2.5, 2.5, 1.8),
    outdoors=1.2,
    round=True,
)
CAR = Piece(
    (
        Part((0, 0, 0.42), (1, 1, 0.25)),
        Part((0, -0.08, 0.8), (0.92, 0.5, 0.2), second=True),
        *(Part((x, y, 0.16), (0.1, 0.15, 0.16), second=True) for x in (-0.9, 0.9) for y in (-0.6, 0.6)),
    ),
    (1.6, 3.6, 1.35),
    (2.0, 5.0, 2.0),
    outdoors=1.8,
)
POLE = Piece(
    (
        Part((0, 0, 0.5), (0, 0, 0.5), add_m=(0.06, 0.06, 0), shape=CYLINDER),
        Part((0, 0, 0.9), (1, 0.05, 0.08), second=True),
    ),
    (0.4, 0.4, 2.0),
    (0.9, 0.9, 7.0),
    outdoors=1.5,
)
FENCE = Piece(
    (
        *(Part((x, 0, 0.5), (0.012, 0.5, 0.5)) for x in (-1, -0.6, -0.2, 0.2, 0.6, 1)),
        Part((0, 0, 0.85), (1, 0.4, 0.05), second=True),
        Part((0, 0, 0.4), (1, 0.4, 0.05), second=True),
    ),
    (3.0, 0.1, 0.8),
    (10.0, 0.2, 1.8),
    outdoors=0.8,
)
LOW_WALL = Piece((Part((0, 0, 0.5), (1, 1, 0.5)),), (2.0, 0.2, 0.4), (10.0, 0.5, 2.5), outdoors=0.9)
BENCH = Piece(
    (_make_board(0.5, 0.03), *_make_legs(0.5, 0.04), Part((0, -0.95, 0.8), (1, 0.06, 0.2))),
    (1.2, 0.4, 0.8),
    (2.0, 0.6, 1.0),
    0.3,
    0.7,
)
PERSON = Piece(
    (
        Part((-0.4, 0, 0.24), (0.33, 0.42, 0.24), shape=CYLINDER, second=True),
        Part((0.4, 0, 0.24), (0.33, 0.42, 0.24), shape=CYLINDER, second=True),
        Part((0, 0, 0.65), (0.9, 0.75, 0.2), shape=BALL),
        Part((0, 0, 0.92), (0.42, 0.6, 0.075), shape=BALL),
    ),
    (0.42, 0.25, 1.5),
    (0.55, 0.35, 1.9),
    0.6,
    1.2,
    walls=0.1,
)

PIECES = (
    *(CABINET, COUNTER, TABLE, DESK, ROUND_TABLE, CHAIR, SLATTED_CHAIR, OFFICE_CHAIR, STOOL, SHELF, BOOKCASE, RACK),
    *(SOFA, BED, STACK, BIN, BALL_PIECE, LAMP, PLANT, MACHINE, WHITEBOARD, PARTITION, COLUMN),
    *(HOUSE, TREE, BUSH, CAR, POLE, FENCE, LOW_WALL, BENCH, PERSON),
)
PARTS = max(len(piece.parts) for piece in PIECES)
# Pieces that are recognized by their paint: books, leaves, the front of a house.
BOOKISH, LEAFY, HOUSES = (BOOKCASE,), (PLANT, TREE, BUSH), (HOUSE,)


class Templates(NamedTuple):
    """``PIECES`` as tensors: (kinds, PARTS, 3), ``used``, ``shape`` and ``second`` (kinds, PARTS); sizes (kinds, 3)."""

    at: Tensor
    half: Tensor
    shift_m: Tensor
    add_m: Tensor
    used: Tensor
    shape: Tensor
    second: Tensor
    smallest_m: Tensor
    largest_m: Tensor
    carries: Tensor
    walls: Tensor
    round: Tensor


@cache
def piece_templates() -> Templates:
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
        shape=torch.tensor([[part.shape for part in row] for row in rows]),
        second=torch.tensor([[part.second for part in row] for row in rows]),
        smallest_m=torch.tensor([piece.smallest_m for piece in PIECES]),
        largest_m=torch.tensor([piece.largest_m for piece in PIECES]),
        carries=torch.tensor([piece.carries for piece in PIECES]),
        walls=torch.tensor([piece.walls for piece in PIECES]),
        round=torch.tensor([piece.round for piece in PIECES]),
    )


def is_one_of(kind: Tensor, pieces: tuple[Piece, ...]) -> Tensor:
    """Where ``kind``, positions in ``PIECES``, is one of these pieces."""
    return torch.isin(kind, torch.tensor([PIECES.index(piece) for piece in pieces]))
