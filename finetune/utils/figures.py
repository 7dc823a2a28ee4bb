"""Figures as sentences and tables spell them."""

from __future__ import annotations


def percent(share: float, decimals: int = 0) -> str:
    """A share, 0 to 1, with two digits where it is below 1 %: 0.00012 is "0.012%", and only nothing is "0%"."""
    if share <= 0:
        return "0%"
    return (
        f"{share:.{decimals}%}"
        if share >= 0.01
        else f"{float(f'{100 * share:.2g}'):.12f}".rstrip("0").rstrip(".") + "%"
    )


def meters(depth_m: float, digits: int = 3) -> str:
    """A depth with so many digits and its unit, whole meters in full: "0.0278 m", "1490 m"."""
    if 10**digits <= abs(depth_m) < 1e7:
        return f"{depth_m:.0f} m"
    return f"{depth_m:.{digits}g} m"
