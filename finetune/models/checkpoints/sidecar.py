"""Files next to weights: descriptions in JSON, and the digest that ties them to the weights. Imports no torch."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from finetune.utils.errors import CheckpointError, first_line
from finetune.utils.paths import is_file, read_text


def read_json(path: Path, fix: str) -> dict[str, Any]:
    """
    Returns:
        The mapping in a file; empty where there is no file, or no mapping in it.

    Raises:
        CheckpointError: the file is not JSON; ``fix`` says what to do.
    """
    if not is_file(path):
        return {}
    try:
        content = json.loads(read_text(path))
    except (ValueError, RecursionError, OSError) as error:
        raise CheckpointError(path, f"cannot be read as JSON ({first_line(error)})", fix) from error
    return content if isinstance(content, dict) else {}


def file_digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
