"""Focal lengths sorted into lenses, by hand."""

from finetune.data.lenses import group_focal_lengths


def test_lenses_are_split_where_there_is_a_gap() -> None:
    lenses = group_focal_lengths([260.0, 364.0, 261.0, 182.0, 363.0])
    assert list(map(str, lenses)) == ["182 px", "260 to 261 px", "363 to 364 px"]
    assert [lens.holds(261.0) for lens in lenses] == [False, True, False]


def test_one_lens_and_none() -> None:
    assert list(map(str, group_focal_lengths([259.6, 260.1]))) == ["260 px"]
    assert group_focal_lengths([]) == []


def test_a_zoom_without_gaps_is_cut_at_equal_ratios() -> None:
    # From 100 to 160 px: the ends are 100 * 1.6 ** (1, 2, 3) / 4, which are 112.5, 126.5 and 142.3.
    lenses = group_focal_lengths([100.0 * 1.02**i for i in range(24)] + [160.0])
    assert [round(lens.least_px) for lens in lenses] == [100, 113, 127, 143]
    assert sum(lens.holds(130.0) for lens in lenses) == 1
