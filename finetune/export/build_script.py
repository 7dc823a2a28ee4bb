"""``build_engine.sh`` of a check pack: the lines that build a TensorRT engine on the device, and check it there."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from finetune.export.options import ANY_BATCH, ExportOptions
from finetune.inference.exported import FOCAL, IMAGE
from finetune.models.encoder_specs import PATCH

SCRIPT_FILE = "build_engine.sh"
# The engine of a file for any batch takes up to so many images at a time.
_MOST_IMAGES = 4
# The engine of a file for any size takes all from here to here, which is where the images of the check pack are.
_LEAST, _MOST = (8 * PATCH, 8 * PATCH), (13 * PATCH, 13 * PATCH)
_SCRIPT = """#!/bin/sh
# Build a TensorRT engine of the .onnx file next to this folder ({precision}), on the device that will run it.
# Run: sh build_engine.sh 11    (or 10, or 8.6: your version of TensorRT, as trtexec --help says)
# UNTRIED: these lines were written from the documentation, where no TensorRT was. check_engine.py tells what comes out.
set -eu
cd "$(dirname "$0")"
onnx={model}
engine={engine}
# For an input of any size or batch: from, mostly, and up to which shape.
shapes="{shapes}"
case "${{1:-}}" in
8.6*)  # untried; it knows no types of its own, so each layer that is not float16 is named
    trtexec --onnx="$onnx" --saveEngine="$engine" $shapes{flags_of_8} ;;
10*)  # untried; --stronglyTyped takes every type from the file
    trtexec --onnx="$onnx" --saveEngine="$engine" $shapes --stronglyTyped ;;
11*)  # untried; types are always taken from the file
    trtexec --onnx="$onnx" --saveEngine="$engine" $shapes ;;
*)
    echo "Say your version of TensorRT: sh build_engine.sh 8.6, 10 or 11" >&2
    exit 2 ;;
esac
python3 check_engine.py "$engine"
"""


@dataclass(frozen=True)
class EngineBuild:
    """
    Attributes:
        options: of the export.
        wide: names of the nodes that compute in float32, in a file that has float16.
        has_focal: whether there is the input ``focal_px``.
    """

    options: ExportOptions
    wide: Sequence[str]
    has_focal: bool

    def write_script(self, folder: Path, model: str, size: tuple[int, int]) -> None:
        """
        Args:
            folder: the check pack.
            model: the name of the .onnx file, next to the pack.
            size: height and width of the network's input for the usual image, pixels.
        """
        flags = ""
        if self.options.precision in ("float16", "mixed"):
            named = "".join(f",{name}:fp32" for name in self.wide)
            flags = f" --fp16 --precisionConstraints=obey --layerPrecisions=*:fp16{named}"
        text = _SCRIPT.format(
            model=shlex.quote(f"../{model}"),
            engine=shlex.quote(f"../{Path(model).stem}.engine"),
            precision=self.options.precision,
            shapes=self._format_shapes(size),
            flags_of_8=flags,
        )
        (folder / SCRIPT_FILE).write_text(text, encoding="utf-8")

    def _format_shapes(self, size: tuple[int, int]) -> str:
        """The options of trtexec; "" where every input has one shape."""
        batches = (1, 1, _MOST_IMAGES) if self.options.batch == ANY_BATCH else (self.options.batch,) * 3
        sizes = (_LEAST, size, _find_most(size)) if self.options.dynamic else (size,) * 3
        if self.options.resize:
            sizes = (self.options.image_size,) * 3
        if len(set(batches)) == 1 and len(set(sizes)) == 1:
            return ""
        found = []
        for option, batch, (height, width) in zip(("min", "opt", "max"), batches, sizes, strict=True):
            is_raw = self.options.input_type == "uint8"
            image = f"{batch}x{height}x{width}x3" if is_raw else f"{batch}x3x{height}x{width}"
            focal = f",{FOCAL}:{batch}" if self.has_focal and self.options.batch == ANY_BATCH else ""
            found.append(f"--{option}Shapes={IMAGE}:{image}{focal}")
        return " ".join(found)


def _find_most(size: tuple[int, int]) -> tuple[int, int]:
    """The largest size: that of the image or of the check pack, whichever is larger, on each side."""
    return max(size[0], _MOST[0]), max(size[1], _MOST[1])
