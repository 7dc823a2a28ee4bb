"""The folder that transformers loads: configuration, processor, weights by the hub's names, and a model card."""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from finetune.data.preprocessing import Preprocessing
from finetune.export.base import Exporter, PredictImage
from finetune.export.comparison import Comparison
from finetune.export.model_card import MODEL_CARD, Measured, model_card
from finetune.export.official import description
from finetune.models.checkpoints.huggingface import CONFIG_FILE, OURS_FILE, POSITIONS, POSITIONS_FILE, PROCESSOR_FILE
from finetune.models.checkpoints.huggingface import HuggingFace as HuggingFaceNames
from finetune.models.checkpoints.sidecar import file_digest
from finetune.models.encoder_specs import ENCODERS, PATCH, TRANSFORMERS_OFFSET
from finetune.utils.errors import FinetuneError, ResultError

if TYPE_CHECKING:
    from finetune.inference.predictor import Predictor

WEIGHTS_FILE = "model.safetensors"
BICUBIC = 3  # of Pillow
# (height, width) of the images that cameras give; facts that a user can look up for theirs.
COMMON_SIZES = (
    (192, 256), (240, 320), (240, 424), (288, 512), (360, 640), (400, 640), (424, 512), (480, 640), (480, 848),
    (720, 1280), (768, 1024), (1080, 1920), (375, 1242),
)  # fmt: skip


class HuggingFace(Exporter):
    """For ``AutoModelForDepthEstimation`` and ``pipeline("depth-estimation")``, transformers 4.45 or newer.

    Its processor resizes in another way than ours, and its network samples the position embedding in another way. For
    images of the shape of ``image_size`` the first is pinned to our size, and the second is made up for in the
    embedding; as it was trained, that lies beside the weights, so that our own loader gets back what was exported.
    """

    suffix = ""
    limit = 1e-3

    def require_writable(self, max_depth_m: float | None, *, adapters: bool | None = None) -> None:
        """Whole meters only, and transformers must be there."""
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
        """All of it but what the card says of differences, which are not known yet."""
        import torch
        from safetensors.torch import save_file

        from finetune.models.position_embedding import refitted_positions

        output.mkdir()
        network = predictor.network
        state = network.state_dict()
        height, width = predictor.preprocessing.network_size(*self.image_size)
        fitted = refitted_positions(
            state[POSITIONS],
            height // PATCH,
            width // PATCH,
            offset=network.position_offset,
            other=TRANSFORMERS_OFFSET,
        )
        dtype = torch.float16 if self.half else torch.float32
        tensors = {
            name: tensor.to("cpu", dtype).contiguous()
            for name, tensor in HuggingFaceNames.from_ours(state | {POSITIONS: fitted}).items()
        }
        save_file(tensors, output / WEIGHTS_FILE, {"format": "pt"})
        is_fitted = fitted is not state[POSITIONS]
        if is_fitted:
            trained = state[POSITIONS].to("cpu", dtype).contiguous()
            save_file({POSITIONS: trained}, output / POSITIONS_FILE)
        ours = description(predictor) | {
            "format": "huggingface",
            "weights_sha256": file_digest(output / WEIGHTS_FILE),
            "positions_fitted_to": [height, width] if is_fitted else None,
        }
        side = round((fitted.shape[1] - 1) ** 0.5)
        _write_json(output / OURS_FILE, ours)
        _write_json(output / CONFIG_FILE, configuration(predictor, side, self.half))
        _write_json(output / PROCESSOR_FILE, processor(predictor.preprocessing, self.image_size))
        self._write_card(predictor, output, None)

    def read(self, output: Path, device: str) -> PredictImage:
        """By transformers alone, given the pixels that our own network sees."""
        return _predict_with(_loaded(output).to(device), output)

    def conclude(
        self, predictor: Predictor, output: Path, image: NDArray[np.uint8], comparison: Comparison
    ) -> Sequence[str]:
        """Measure the whole pipeline too, with its own resizing, and another shape of image; complete the card."""
        model = _loaded(output)
        own, piped = predictor.predict(image), _piped(model, output, image)
        spread = float(np.ptp(own))
        share = np.abs(piped - own) / spread
        other = image[:, : max(1, image.shape[1] // 2)]
        measured = Measured(
            comparison=comparison,
            pipeline_median=float(np.median(share)),
            pipeline_99th=float(np.quantile(share, 0.99)),
            other_size=(other.shape[0], other.shape[1]),
            other_largest=float(np.abs(_predict_with(model, output)(other) - predictor.predict(other)).max() / spread),
        )
        self._write_card(predictor, output, measured)
        differing = differing_sizes(predictor.preprocessing, self.image_size)
        notes = [
            f"through its own processor: median difference {measured.pipeline_median:.2g}, 99th percentile "
            f"{measured.pipeline_99th:.2g} of the spread"
        ]
        if differing:
            notes.append(
                f"made for images of the shape {_by(self.image_size)}; for others its processor may give the network "
                f"another size than ours: {'; '.join(differing)}"
            )
        return notes

    def _write_card(self, predictor: Predictor, output: Path, measured: Measured | None) -> None:
        sizes = differing_sizes(predictor.preprocessing, self.image_size)
        text = model_card(predictor, self.image_size, measured, sizes)
        (output / MODEL_CARD).write_text(text, encoding="utf-8")


def configuration(predictor: Predictor, side: int, half: bool) -> dict[str, Any]:
    """``config.json``: what transformers builds the network from; ``side`` is that of the stored positions, patches."""
    network = predictor.network
    spec = ENCODERS[network.encoder_name]
    indices = [index + 1 for index in spec.out_indices_of(network.version)]  # 0 is the embedding's
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
        # transformers refuses even 10.0; of a relative model it multiplies the answer by it.
        "max_depth": int(network.max_depth_m or 1),
        "torch_dtype": "float16" if half else "float32",
    }


def processor(preprocessing: Preprocessing, image_size: tuple[int, int]) -> dict[str, Any]:
    """``preprocessor_config.json``, with which images of this shape get the size that ours gives them."""
    height, width = preprocessing.network_size(*image_size)
    keeps_aspect = transformers_size(*image_size, (height, width)) == (height, width)
    return {
        "image_processor_type": "DPTImageProcessor",
        "do_resize": True,
        "size": {"height": height, "width": width},
        # Where the aspect that it would keep leads to another size, it is given up.
        "keep_aspect_ratio": keeps_aspect,
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


def transformers_size(height: int, width: int, size: tuple[int, int]) -> tuple[int, int]:
    """(height, width) that DPTImageProcessor gives an image: scaled by whichever factor is nearer to 1."""
    factors = size[0] / height, size[1] / width
    factor = factors[1] if abs(1 - factors[1]) < abs(1 - factors[0]) else factors[0]
    return round(factor * height / PATCH) * PATCH, round(factor * width / PATCH) * PATCH


def differing_sizes(preprocessing: Preprocessing, image_size: tuple[int, int]) -> list[str]:
    """Of the common image sizes, those for which the two give the network another size, and which."""
    pinned = processor(preprocessing, image_size)
    size = (pinned["size"]["height"], pinned["size"]["width"])
    found = []
    for height, width in COMMON_SIZES:
        ours = preprocessing.network_size(height, width)
        theirs = transformers_size(height, width, size) if pinned["keep_aspect_ratio"] else size
        if ours != theirs:
            found.append(f"{_by((height, width))} becomes {_by(theirs)}, ours {_by(ours)}")
    return found


def _by(size: tuple[int, int]) -> str:
    return f"{size[1]}x{size[0]}"


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _loaded(output: Path) -> Any:
    """
    Raises:
        ResultError: transformers left some tensors out, or drew some itself.
    """
    from transformers import AutoModelForDepthEstimation
    from transformers.utils import logging

    shows_bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # of a load that takes no time, twice, in the midst of our own lines
    try:
        model, info = AutoModelForDepthEstimation.from_pretrained(
            output, output_loading_info=True, local_files_only=True
        )
    finally:
        if shows_bars:
            logging.enable_progress_bar()
    wrong = [*info["missing_keys"], *info["unexpected_keys"], *info["mismatched_keys"]]
    if wrong:
        raise ResultError(f"{output}: transformers does not take over {wrong[0]} and {len(wrong) - 1} more tensors.")
    return model.float().eval()


def _predict_with(model: Any, output: Path) -> PredictImage:
    """Of a loaded model, given the pixels that our own network sees."""
    import torch

    from finetune.models.resizing import resize_prediction

    ours = json.loads((output / OURS_FILE).read_text(encoding="utf-8"))
    preprocessing = Preprocessing.from_mapping(ours["preprocessing"])

    def predict(image: NDArray[np.uint8]) -> NDArray[np.float32]:
        pixel_values = torch.from_numpy(preprocessing(image))[None].to(model.device)
        with torch.inference_mode():
            depth = model(pixel_values=pixel_values).predicted_depth
        return resize_prediction(depth[:, None], (image.shape[0], image.shape[1]))

    return predict


def _piped(model: Any, output: Path, image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What ``pipeline("depth-estimation")`` answers."""
    from PIL import Image
    from transformers import AutoImageProcessor, pipeline

    from finetune.models.resizing import resize_prediction

    read_processor = AutoImageProcessor.from_pretrained(output, local_files_only=True)
    pipe = pipeline("depth-estimation", model=model, image_processor=read_processor, device="cpu")
    depth = pipe(Image.fromarray(image))["predicted_depth"]
    # transformers 4.45 leaves it at the size that the network saw.
    return resize_prediction(depth.reshape(1, 1, *depth.shape[-2:]), (image.shape[0], image.shape[1]))
