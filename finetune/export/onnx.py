"""Write an ``.onnx`` file, for runtimes without PyTorch: for one input size, or for all multiples of 14."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from finetune.export.base import Exporter, PredictImage
from finetune.export.build_script import EngineBuild
from finetune.export.check_pack import (
    CheckCase,
    check_folder,
    choose_check_images,
    make_check_cases,
    make_frame_cases,
    read_check_inputs,
    require_right,
    write_check_pack,
)
from finetune.export.comparison import Comparison
from finetune.export.folding import FOR_CAMERA
from finetune.export.onnx_precision import describe_largest, narrow
from finetune.export.onnx_tracing import OPSET, trace_network
from finetune.export.onnx_variants import Variants
from finetune.export.options import PRECISIONS, Precision
from finetune.inference.exported import ExportedModel, import_onnxruntime, load
from finetune.inference.input_form import InputForm
from finetune.utils.errors import FinetuneError
from finetune.utils.kinds import Kind

if TYPE_CHECKING:
    from finetune.export.int8 import Quantizer
    from finetune.inference.predictor import Predictor

NO_ENGINE = (
    "there is no build_engine.sh: TensorRT takes INT8 with zero points of 0 alone, which these are not. Build an "
    "engine of an export in float16 or mixed"
)
_MAX_BYTES = 2_000_000_000  # protobuf, the format of the file, counts in 31 bits


class Onnx(Exporter):
    """Input ``image``, (B, 3, H, W), normalized, or (B, H, W, 3) uint8 RGB; output ``depth_m`` or ``inverse_depth``.

    A canonical model has a second input ``focal_px``, (B,): (fx + fy) / 2 of the cameras at H x W, pixels.

    Metadata, each as JSON: ``kind``, ``max_depth_m``, ``input_size`` (height and width, or ``any`` for all multiples of
    14), ``input_type``, ``batch`` (a number or ``any``), ``frame_size`` (height and width of images that the graph
    resizes itself, or null), ``precision``, ``mean``, ``std``, ``opset``, ``encoder``, ``license``, and of a canonical
    model ``camera``.
    """

    suffix = ".onnx"
    limit = 1e-3
    holds_camera = True
    holds_exponential = True
    precisions: tuple[Precision, ...] = PRECISIONS
    takes = frozenset({"dynamic", "batch", "input_type", "resize"})
    # Whether the graph says float16 itself; else it is a matter of storage, and the runtime chooses.
    types_graph = True
    # What no comparison of float16 on this runtime shows.
    caution = (
        "onnxruntime's CPU computes float16 in float32, so that overflow would show in the largest value alone, and "
        "a device rounds more"
    )
    _judged: Sequence[str] = ()
    _wide: Sequence[str] = ()

    def require_writable(self, max_depth_m: float | None, *, adapters: bool | None = None) -> None:
        """
        Raises:
            FinetuneError: the libraries that write and run such a file are not installed.
        """
        missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]
        if missing:
            raise FinetuneError(f"format onnx needs {', '.join(missing)}. Install them: pip install -e '.[onnx]'.")

    def targets(self, output: Path) -> list[Path]:
        """The check pack, and the file."""
        return [check_folder(output, self.suffix), output]

    def write(self, predictor: Predictor, output: Path) -> None:
        """The file by PyTorch's exporter, and its check pack."""
        self.write_graph(predictor, output)
        if self.options.precision == "int8":
            self._quantize_file(predictor, output)
        self.write_check(predictor, output)
        if self.options.precision == "int8":
            self._judged = [*self._judged, NO_ENGINE]
            return
        build = EngineBuild(self.options, self._wide, has_focal=predictor.canonical is not None)
        build.write_script(check_folder(output, self.suffix), output.name, self._network_size(predictor))

    @property
    def _is_narrow(self) -> bool:
        return self.options.precision in ("float16", "mixed")

    @property
    def _form(self) -> InputForm:
        return InputForm(
            is_uint8=self.options.input_type == "uint8",
            frame_size=self.options.image_size if self.options.resize else None,
        )

    def make_check(self, predictor: Predictor) -> list[CheckCase]:
        """The cases of the check pack."""
        assert self.image is not None
        return make_check_cases(predictor, self.image, self.options)

    def write_check(self, predictor: Predictor, output: Path) -> None:
        """The check pack of what is written at ``output``. INT8, which was accepted, is checked against itself."""
        cases = self.make_check(predictor)
        if self.options.precision == "int8":
            own = self.open(output).engine
            cases = [CheckCase(case.inputs, own.run(case.inputs)) for case in cases]
        folder = check_folder(output, self.suffix)
        options = self.options
        write_check_pack(
            folder,
            cases,
            predictor,
            model=output.name,
            precision=options.precision,
            input_type=options.input_type,
        )

    def judge(self, quantizer: Quantizer, predictor: Predictor) -> None:
        """
        Raises:
            ResultError: what the quantizer makes costs more than is allowed.
        """
        from finetune.export.int8 import quantize_and_judge

        assert self.options.int8 is not None
        size = None if self.options.dynamic else self._network_size(predictor)
        self._judged = quantize_and_judge(quantizer, predictor, self.options.int8, size)

    def _quantize_file(self, predictor: Predictor, output: Path) -> None:
        """Replace a float32 file by an INT8 file that was accepted."""
        from finetune.export.int8_onnx import OnnxQuantizer

        with tempfile.TemporaryDirectory(dir=output.parent, prefix=".float32-") as folder:
            source = Path(folder, "model.onnx")
            output.replace(source)
            self.judge(OnnxQuantizer(source, output), predictor)

    def write_graph(self, predictor: Predictor, output: Path) -> None:
        """
        Write the graph, in float32 or, if that is asked for, in float16, with metadata.

        Raises:
            FinetuneError: the weights do not fit into one file.
            ResultError: float16 could overflow.
        """
        import onnx

        import_onnxruntime()  # without telemetry, before torch's exporter imports it
        size = sum(tensor.nbytes for tensor in predictor.network.state_dict().values())
        if size > _MAX_BYTES:
            raise FinetuneError(
                f"{predictor.source}: {size / 1e9:.1f} GB of weights do not fit into one .onnx file. Export a smaller "
                "encoder, or to official."
            )
        trace_network(predictor, self.options, output_name(predictor.kind), output)
        model = onnx.load(str(output))
        onnx.checker.check_model(model)
        if self._is_narrow:
            cases = make_frame_cases(predictor, self.options) or self.make_check(predictor)
            inputs = [case.inputs for case in cases]
            if self.types_graph:
                model, self._wide, said = narrow(model, self.options.precision, inputs, output.name)
            else:
                said = describe_largest(model, inputs)
            self._judged = [said]
        onnx.helper.set_model_props(
            model, {name: json.dumps(value) for name, value in self._make_metadata(predictor).items()}
        )
        onnx.save(model, str(output))

    def choose_compared(self, predictor: Predictor, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """For uint8 that is resized before, and so rounded: the resized image."""
        return self._form.at_network_size(image, predictor.preprocessing)

    def read(self, output: Path, device: str) -> PredictImage:
        """Run the file alone in onnxruntime, on the CPU."""
        exported = self.open(output)
        return partial(exported.predict_at, focal_px=exported.canonical.focal_px if exported.canonical else None)

    def open(self, output: Path) -> ExportedModel:
        """What is written at ``output``, as its users load it."""
        return load(output)

    def conclude(
        self, predictor: Predictor, output: Path, image: NDArray[np.uint8], comparison: Comparison
    ) -> Sequence[str]:
        """Compare all that the file accepts: sizes, batches, lenses; and the frames that it was measured on."""
        exported = self.open(output)
        engine = exported.engine
        folder = check_folder(output, self.suffix)
        answers = [engine.run(inputs) for inputs in read_check_inputs(folder)]
        require_right(folder, answers, comparison.output, self.options.precision)
        variants = Variants(
            predictor=predictor,
            run=engine.run,
            options=self.options,
            allowed=self.allowed,
            name=str(comparison.output),
        )
        of_frames = variants.compare_frames(image, self.caution) if self._is_narrow else []
        judged = [f"{comparison.output}: {sentence}" for sentence in self._judged]
        if self._form.rounds:
            judged.append(f"{comparison.output}: {describe_rounding(predictor, exported, image)}")
        return [*variants.compare(image), *judged, *of_frames]

    def _network_size(self, predictor: Predictor) -> tuple[int, int]:
        return predictor.preprocessing.network_size(*self.options.image_size)

    def _make_metadata(self, predictor: Predictor) -> dict[str, object]:
        preprocessing = predictor.preprocessing
        return {
            "kind": predictor.kind,
            "max_depth_m": predictor.max_depth_m,
            "activation": predictor.network.activation,
            "input_size": "any" if self.options.dynamic else list(self._network_size(predictor)),
            "input_type": self.options.input_type,
            "batch": self.options.batch,
            "frame_size": list(self.options.image_size) if self.options.resize else None,
            "precision": self.options.precision,
            "preprocessing": preprocessing.to_mapping(),
            "mean": list(preprocessing.mean),
            "std": list(preprocessing.std),
            "opset": OPSET,
            "encoder": predictor.network.encoder_name,
            "license": predictor.base.get("license"),
            **({"camera": predictor.canonical.to_mapping()} if predictor.canonical else {}),
            **({FOR_CAMERA: predictor.metadata[FOR_CAMERA]} if FOR_CAMERA in predictor.metadata else {}),
        }


def describe_rounding(predictor: Predictor, exported: ExportedModel, image: NDArray[np.uint8]) -> str:
    """
    Args:
        predictor: the model that was exported.
        exported: takes 8 bits at the network's size.
        image: of a size that it accepts.

    Returns:
        A sentence: how far predictions are from the model's own since images are rounded before the network sees them.
    """
    height, width = image.shape[:2]
    rounded = "an image of another size is resized before it, to 8 bits again, which rounds by up to half of a level"
    if predictor.preprocessing.network_size(height, width) == (height, width):
        return f"{rounded}; one of {height}x{width} is not"
    focal_px = predictor.canonical.focal_px if predictor.canonical else None
    images = choose_check_images(image)
    own = np.stack([predictor.predict_at(one, focal_px) for one in images])
    off = np.abs(np.stack([exported.predict_at(one, focal_px) for one in images]) - own)
    largest, mean = f"{1000 * off.max():.2g} mm", f"{1000 * off.mean():.2g} mm on average"
    if predictor.kind != "metric":
        spread = max(float(np.ptp(own)), 1e-12)
        largest, mean = f"{off.max() / spread:.2g} of the spread", f"{off.mean() / spread:.2g} on average"
    return (
        f"{rounded}: on {len(images)} images of {height}x{width} predictions are at most {largest}, {mean}, from the "
        "model's own. --resize, or --input float32, rounds nothing"
    )


def output_name(kind: Kind) -> str:
    """The name of the output, which says its unit."""
    return {"metric": "depth_m", "relative": "inverse_depth", "relative_depth": "relative_depth"}[kind]
