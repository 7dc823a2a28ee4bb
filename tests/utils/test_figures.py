"""Figures in words."""

import pytest

from finetune.utils.figures import meters, percent


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.0, "0%"),
        (8 / 76800, "0.01%"),
        (1 / 76800, "0.0013%"),
        (0.0005, "0.05%"),
        (0.0099, "0.99%"),
        (0.01, "1%"),
        (0.123, "12%"),
        (1.0, "100%"),
        (1e-9, "0.0000001%"),
    ],
)
def test_a_share_below_one_percent_has_two_digits(share: float, text: str) -> None:
    assert percent(share) == text


@pytest.mark.parametrize(
    ("depth_m", "digits", "text"),
    [
        (0.02781, 3, "0.0278 m"),
        (999.4, 3, "999 m"),
        (1489.6, 3, "1490 m"),
        (65.535, 4, "65.53 m"),
        (6695.2, 4, "6695 m"),
        (123456.0, 3, "123456 m"),
        (3.4028e38, 4, "3.403e+38 m"),
        (0.0, 3, "0 m"),
    ],
)
def test_whole_meters_are_written_in_full(depth_m: float, digits: int, text: str) -> None:
    assert meters(depth_m, digits) == text
