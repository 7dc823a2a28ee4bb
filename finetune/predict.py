"""``python finetune/predict.py MODEL PATH... --output DIR``: images to depth in meters."""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:
    # Run as a file, Python puts this folder first on its path, and not the one that holds the package.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from finetune.commands.predict import main

if __name__ == "__main__":
    sys.exit(main())
