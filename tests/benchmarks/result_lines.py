"""Results of long benchmarks: a JSON line for each run that has ended, so that the same call goes on where it was."""

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def read_result_lines(path: Path) -> list[dict[str, Any]]:
    """The lines so far; half a line of a call that was killed is none."""
    found = []
    for line in path.read_text().splitlines() if path.is_file() else ():
        with contextlib.suppress(json.JSONDecodeError):
            found.append(json.loads(line))
    return found


def add_result_line(path: Path, result: Mapping[str, Any]) -> None:
    """Add a line; the file and its folder are made if they are missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(result) + "\n")
