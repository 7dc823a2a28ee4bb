"""``python finetune/label.py TEACHER PATH... --output DIR``: images to pseudo-labels."""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:
    # When this file is run, Python puts its folder first on the path; the package is found from the folder above.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from finetune.commands.label import main

if __name__ == "__main__":
    sys.exit(main())
