"""Times of images and sweeps: from rows of text, or from the numbers in their names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from finetune.utils.errors import ListError
from finetune.utils.paths import is_file, missing, read_bytes

# KITTI's timestamps.txt: 2011-09-26 13:02:25.964389445
_DATE = re.compile(r"^(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d:\d\d(?:\.\d+)?)")
_NUMBER = re.compile(r"^[-+]?\d+\.?\d*(?:[eE][-+]?\d+)?$")
# The time in a name: seconds since 1970 with or without decimals, or milli-, micro- or nanoseconds since then.
_IN_NAME = re.compile(r"\d{10,19}(?:[._]\d{1,9})?")
_EPOCH_DIGITS = {10: 1.0, 13: 1e-3, 16: 1e-6, 19: 1e-9}
# Rows of seconds reach no year after 5000, and no LiDAR waits this long between two sweeps.
_MAX_S, _MAX_INTERVAL_S = 1e11, 1000.0
_FIX = "Write a row for each file, in seconds: TIME, or TIME NAME"


def read_times(path: Path, names: Sequence[str]) -> list[float]:
    """
    Args:
        path: rows of text: a time alone, in the order of the files; or a time and the name of a file, in either order.
            A time is in seconds, or a date as KITTI writes it. Lines that begin with ``#`` are skipped.
        names: of the files, in their order.

    Returns:
        The time of each file, seconds.

    Raises:
        ListError: the file is missing, a row has no time, or a file has no row.
    """
    if not is_file(path):
        raise ListError(path, missing(path), _FIX)
    try:
        text = read_bytes(path).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ListError(path, f"cannot be read ({getattr(error, 'strerror', None) or error})", _FIX) from None
    rows = [
        (number, line.strip())
        for number, line in enumerate(text.splitlines(), start=1)
        if line.strip() and not line.lstrip().startswith("#")
    ]
    parsed = [_parse_row(f"{path}:{number}", line) for number, line in rows]
    _require_seconds(path, np.array([time_s for time_s, _ in parsed]))
    if all(name is None for _, name in parsed):
        if len(parsed) != len(names):
            raise ListError(path, f"has {len(parsed)} times for {len(names)} files", _FIX)
        return [time_s for time_s, _ in parsed]
    by_name = {Path(name).name: time_s for time_s, name in parsed if name is not None}
    by_stem = {Path(name).stem: time_s for name, time_s in by_name.items()}
    found = [by_name.get(name, by_stem.get(name, by_stem.get(Path(name).stem))) for name in names]
    without = [name for name, time_s in zip(names, found, strict=True) if time_s is None]
    if without:
        raise ListError(path, f"has no time for {without[0]}", _FIX)
    return [time_s for time_s in found if time_s is not None]


def times_in_names(names: Sequence[str]) -> list[float] | None:
    """Seconds since 1970 from the number in each name, ``1532402927647951.pcd.bin``; None where a name has none."""
    times = []
    for name in names:
        found = _IN_NAME.findall(name)
        if not found:
            return None
        whole, _, decimals = found[-1].replace("_", ".").partition(".")
        # 0000000005.png of KITTI's raw data is the number of a frame.
        if len(whole) not in _EPOCH_DIGITS or whole.startswith("0"):
            return None
        times.append(int(whole) * _EPOCH_DIGITS[len(whole)] + (float(f"0.{decimals}") if decimals else 0.0))
    return times


def _require_seconds(path: Path, times: NDArray[np.float64]) -> None:
    """
    Raises:
        ListError: the times are far too large, or too far apart, for seconds.
    """
    interval = float(np.median(np.diff(np.sort(times)))) if len(times) > 1 else 0.0
    if not len(times) or (np.abs(times).max() < _MAX_S and interval < _MAX_INTERVAL_S):
        return
    unit = "nanoseconds" if interval > 5e6 else "microseconds" if interval > 5e3 else "milliseconds"
    if not interval:
        unit = "milliseconds, microseconds or nanoseconds"
    raise ListError(
        path,
        f"has times up to {times.max():.0f}, which are no seconds",
        f"Write them in seconds; they seem to be {unit}",
    )


def _parse_row(source: str, line: str) -> tuple[float, str | None]:
    date = _DATE.match(line)
    if date:
        time = np.datetime64(f"{date[1]}T{date[2]}", "ns")
        rest = line[date.end() :].strip()
        return int(time.astype(np.int64)) * 1e-9, rest or None
    words = line.replace(",", " ").split()
    numbers = [i for i, word in enumerate(words[:2]) if _NUMBER.match(word)]
    if not numbers or len(words) > 2:
        raise ListError(source, f"is {line[:60]!r}, not a time and a name", _FIX)
    # 000012 1.25 could be either: the time is first, as in TUM's lists.
    first = numbers[0]
    name = words[1 - first] if len(words) == 2 else None
    return float(words[first]), name
