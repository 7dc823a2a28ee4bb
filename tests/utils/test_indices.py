"""Indices spread over a sequence."""

from finetune.utils.indices import evenly_spread


def test_evenly_spread_takes_both_ends_and_never_too_many() -> None:
    assert evenly_spread(10, 4) == [0, 3, 6, 9]
    assert evenly_spread(3, 200) == [0, 1, 2]
    assert evenly_spread(1, 5) == [0]
    assert len(evenly_spread(100_000, 200)) == 200
