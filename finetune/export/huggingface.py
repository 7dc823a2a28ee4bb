"""Write the folder that transformers loads: configuration, processor, weights with the hub's names, a model card."""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from finetune.data.preprocessing import Preprocessing
from finetune.export.base import Exporter, PredictImage
from finetune.export.comparison import Comparison
from finetune.export.model_card import MODEL_CARD, MeasuredDifferences, make_model_card
from finetune.export.official import describe_model
from finetune.models.checkpoints.huggingface import CONFIG_FILE, OURS_FILE, POSITIONS, POSITIONS_FILE, PROCESSOR_FILE
from finetune.models.checkpoints.huggingface import HuggingFace as HuggingFaceNames
from finetune.models.checkpoints.sidecar import file_digest
from finetune.models.encoder_specs import ENCODERS, PATCH, TRANSFORMERS_OFFSET
from finetune.utils.errors import FinetuneError, ResultError

if TYPE_CHECKING:
    from torch import nn

    from finetune.inference.predictor import Predictor

WEIGHTS_FILE = "model.safetensors"
BICUBIC = 3  # Pillow's code for bicubic
# (height, width) of the images of common cameras.
COMMON_SIZES = (
    (192, 256), (240, 320), (240, 424), (288, 512), (360, 640), (400, 640), (424, 512), (480, 640), (480, 848),
    (720, 1280), (768, 1024), (1080, 1920), (375, 1242),
)  # fmt: skip


class HuggingFace(Exporter):
    """For ``AutoModelForDepthEstimation`` and ``pipeline("depth-estimation")``, transformers 4.45 or newer.

    Its processor resizes differently from ours, and its network samples the position embedding differently. For images
    of the shape of ``image_size`` the processor is pinned to our size, and the stored embedding is refitted. The
    embedding as trained is written next to the weights, so that our own loader gets back what was exported.
    """

    suffix = ""
    limit = 1e-3

    def require_writable(self, max_depth_m: float | None, *, adapters: bool | None = None) -> None:
        """Accept whole meters only, and require transformers."""
        if max_depth_m is not None and not float(max_depth_m).is_integer():
            below, above = max(1, math.floor(max_depth_m)), math.ceil(max_depth_m)
            nearest = f"{below} or {above}" if below != above else f"{above}"
            raise FinetuneError(
                f"format huggingface: max depth is {max_depth_m:g} m, and transformers takes whole meters only. Train "
                f"with model.max_depth_m: {nearest}, or export another format."
            )
        if importlib.util.find_spec("transformers") is None:
            raise FinetuneError(
                "format huggingface: transformers is not installed. Install it: pip install -e '.[huggingface]'."
            )

    def targets(self, output: Path) -> list[Path]:
        """The folder."""
        return [output]

    def write(self, predictor: Predictor, output: Path) -> None:
        """Write everything but the card's section on differences, which are not measured yet."""
        import torch
        from safetensors.torch import save_file

        from finetune.models.position_embedding import refitted_positions

        output.mkdir()
        network = predictor.network
        state = network.state_dict()
        height, width = predictor.preprocessing.network_size(*self.options.image_size)
        fitted = refitted_positions(
            state[POSITIONS],
            height // PATCH,
            width // PATCH,
            offset=network.position_offset,
            other=TRANSFORMERS_OFFSET,
        )
        dtype = torch.float16 if self.options.half else torch.float32
        tensors = {
            name: tensor.to("cpu", dtype).contiguous()
            for name, tensor in HuggingFaceNames.from_ours(state | {POSITIONS: fitted}).items()
        }
        save_file(tensors, output / WEIGHTS_FILE, {"format": "pt"})
        is_fitted = fitted is not state[POSITIONS]
        if is_fitted:
            trained = state[POSITIONS].to("cpu", dtype).contiguous()
            save_file({POSITIONS: trained}, output / POSITIONS_FILE)
        ours = describe_model(predictor) | {
            "format": "huggingface",
            "weights_sha256": file_digest(output / WEIGHTS_FILE),
            "positions_fitted_to": [height, width] if is_fitted else None,
        }
        side = round((fitted.shape[1] - 1) ** 0.5)
        _write_json(output / OURS_FILE, ours)
        _write_json(output / CONFIG_FILE, make_model_config(predictor, side, self.options.half))
        _write_json(output / PROCESSOR_FILE, make_processor_config(predictor.preprocessing, self.options.image_size))
        self._write_card(predictor, output, None)

    def read(self, output: Path, device: str) -> PredictImage:
        """Load it with transformers alone; its network gets the same pixels as our own."""
        return _make_predict(_load_exported(output).to(device), output)

    def conclude(
        self, predictor: Predictor, output: Path, image: NDArray[np.uint8], comparison: Comparison
    ) -> Sequence[str]:
        """Measure the whole pipeline with its own resizing, and an image of another shape; then complete the card."""
        model = _load_exported(output)
        own, piped = predictor.predict(image), _predict_by_pipeline(model, output, image)
        spread = float(np.ptp(own))
        share = np.abs(piped - own) / spread
        other = image[:, : max(1, image.shape[1] // 2)]
        measured = MeasuredDifferences(
            comparison=comparison,
            pipeline_median=float(np.median(share)),
            pipeline_99th=float(np.quantile(share, 0.99)),
            other_size=(other.shape[0], other.shape[1]),
            other_largest=float(np.abs(_make_predict(model, output)(other) - predictor.predict(other)).max() / spread),
        )
        self._write_card(predictor, output, measured)
        differing = differing_sizes(predictor.preprocessing, self.options.image_size)
        notes = [
            f"through its own processor: median difference {measured.pipeline_median:.2g}, 99th percentile "
            f"{measured.pipeline_99th:.2g} of the spread"
        ]
        if differing:
            size = _format_size(self.options.image_size)
            notes.append(
                f"made for images of {size}; for others transformers' processor may choose "
                f"another network size than ours: {'; '.join(differing)}"
            )
        return notes

    def _write_card(self, predictor: Predictor, output: Path, measured: MeasuredDifferences | None) -> None:
        sizes = differing_sizes(predictor.preprocessing, self.options.image_size)
        text = make_model_card(predictor, self.options.image_size, measured, sizes)
        (output / MODEL_CARD).write_text(text, encoding="utf-8")


def make_model_config(predictor: Predictor, side: int, half: bool) -> dict[str, object]:
    """``config.json``, from which transformers builds the network; ``side`` of the stored positions, in patches."""
    network = predictor.network
    spec = ENCODERS[network.encoder_name]
    indices = [index + 1 for index in spec.out_indices_of(network.version)]  # 0 is the patch embedding
    return {
        "architectures": ["DepthAnythingForDepthEstimation"],
        "model_type": "depth_anything",
        "backbone_config": {
            "model_type": "dinov2",
            "hidden_size": spec.embed_dim,
            "num_hidden_layers": spec.depth,
            "num_attention_heads": spec.heads,
            "image_size": side * PATCH,
            "patch_size": PATCH,
            "out_features": [f"stage{index}" for index in indices],
            "out_indices": indices,
            "reshape_hidden_states": False,
            "apply_layernorm": True,
            "use_swiglu_ffn": spec.swiglu,
            "layer_norm_eps": 1e-6,
        },
        "reassemble_hidden_size": spec.embed_dim,
        "reassemble_factors": [4, 2, 1, 0.5],
        "neck_hidden_sizes": list(spec.out_channels),
        "fusion_hidden_size": spec.features,
        "head_hidden_size": 32,
        "head_in_index": -1,
        "patch_size": PATCH,
        "depth_estimation_type": network.kind,
        # transformers refuses even 10.0. It multiplies the prediction of a relative model by this.
        "max_depth": int(network.max_depth_m or 1),
        "torch_dtype": "float16" if half else "float32",
    }


def make_processor_config(preprocessing: Preprocessing, image_size: tuple[int, int]) -> dict[str, object]:
    """``preprocessor_config.json``, which gives images of this shape the same network size as ours."""
    height, width = preprocessing.network_size(*image_size)
    return {
        "image_processor_type": "DPTImageProcessor",
        "do_resize": True,
        "size": {"height": height, "width": width},
        "keep_aspect_ratio": _keeps_aspect(preprocessing, image_size),
        "ensure_multiple_of": PATCH,
        "resample": BICUBIC,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(preprocessing.mean),
        "image_std": list(preprocessing.std),
        "do_pad": False,
        "size_divisor": None,
    }


def _keeps_aspect(preprocessing: Preprocessing, image_size: tuple[int, int]) -> bool:
    """Whether transformers may keep the aspect ratio, which must lead to our size."""
    size = preprocessing.network_size(*image_size)
    return transformers_size(*image_size, size) == size


def transformers_size(height: int, width: int, size: tuple[int, int]) -> tuple[int, int]:
    """(height, width) to which DPTImageProcessor resizes an image: by whichever factor is nearer to 1."""
    factors = size[0] / height, size[1] / width
    factor = factors[1] if abs(1 - factors[1]) < abs(1 - factors[0]) else factors[0]
    return round(factor * height / PATCH) * PATCH, round(factor * width / PATCH) * PATCH


def differing_sizes(preprocessing: Preprocessing, image_size: tuple[int, int]) -> list[str]:
    """The common image sizes for which transformers chooses another network size than ours, with both sizes."""
    size = preprocessing.network_size(*image_size)
    keeps_aspect = _keeps_aspect(preprocessing, image_size)
    found = []
    for height, width in COMMON_SIZES:
        ours = preprocessing.network_size(height, width)
        theirs = transformers_size(height, width, size) if keeps_aspect else size
        if ours != theirs:
            found.append(f"{_format_size((height, width))} becomes {_format_size(theirs)}, ours {_format_size(ours)}")
    return found


def _format_size(size: tuple[int, int]) -> str:
    """Width x height."""
    return f"{size[1]}x{size[0]}"


def _write_json(path: Path, content: dict[str, object]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _load_exported(output: Path) -> nn.Module:
    """
    Raises:
        ResultError: transformers did not load some tensors, or initialized some itself.
    """
    from transformers import AutoModelForDepthEstimation
    from transformers.utils import logging

    shows_bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # the load takes no time, and its bar would appear between our own lines
    try:
        model, info = AutoModelForDepthEstimation.from_pretrained(
            output, output_loading_info=True, local_files_only=True
        )
    finally:
        if shows_bars:
            logging.enable_progress_bar()
    wrong = [*info["missing_keys"], *info["unexpected_keys"], *info["mismatched_keys"]]
    if wrong:
        raise ResultError(f"{output}: transformers does not load {wrong[0]} and {len(wrong) - 1} more tensors.")
    return model.float().eval()


def _make_predict(model: nn.Module, output: Path) -> PredictImage:
    """The function that predicts with a loaded model, which gets the same pixels as our own network."""
    import torch

    from finetune.models.resizing import resize_prediction

    ours = json.loads((output / OURS_FILE).read_text(encoding="utf-8"))
    preprocessing = Preprocessing.from_mapping(ours["preprocessing"])

    def predict(image: NDArray[np.uint8]) -> NDArray[np.float32]:
        pixel_values = torch.from_numpy(preprocessing(image))[None].to(next(model.parameters()).device)
        with torch.inference_mode():
            depth = model(pixel_values=pixel_values).predicted_depth
        return resize_prediction(depth[:, None], (image.shape[0], image.shape[1]))

    return predict


def _predict_by_pipeline(model: nn.Module, output: Path, image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The prediction of ``pipeline("depth-estimation")``."""
    from PIL import Image
    from transformers import AutoImageProcessor, pipeline

    from finetune.models.resizing import resize_prediction

    read_processor = AutoImageProcessor.from_pretrained(output, local_files_only=True)
    pipe = pipeline("depth-estimation", model=model, image_processor=read_processor, device="cpu")
    depth = pipe(Image.fromarray(image))["predicted_depth"]
    # transformers 4.45 does not resize it to the size of the image.
    return resize_prediction(depth.reshape(1, 1, *depth.shape[-2:]), (image.shape[0], image.shape[1]))
