"""A recipe, one YAML file and ``key=value`` on the command line, as typed, frozen objects.

The classes below are the sections of the file, in order. They list every key with its default, its unit and what it
means. ``data.train``, ``data.val`` and ``loss`` hold entries: ``reader`` or ``kind`` names a class of
``finetune/utils/registry.py``, and all keys that are not listed here are the fields of that class.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Annotated, Any, Literal, NamedTuple, cast

from pydantic import AfterValidator, ConfigDict, Field, SkipValidation
from pydantic.dataclasses import dataclass

from finetune.data.checks.findings import Accepted
from finetune.data.drawn_frames import MAX_DRAWN_FRAMES
from finetune.data.reader import Reader, set_image_levels
from finetune.data.readers.image_levels import Decode, ImageLevels
from finetune.data.sample import MAX_DEPTH_M
from finetune.evaluation.protocol_settings import protocol_settings
from finetune.losses.base import Reduction
from finetune.models.checkpoints.hub import is_hub_id
from finetune.models.encoder_specs import PATCH
from finetune.models.training_camera import CameraMode
from finetune.recipe.cross_checks import CROSS_CHECKS, PROTOCOL_OF_HEAD, Sections
from finetune.recipe.validate import Contradiction, Names, OnDisk
from finetune.recipe.yaml_source import nearest_path
from finetune.utils.errors import RecipeError
from finetune.utils.kinds import Activation, Kind, KindOption
from finetune.utils.paths import MAX_NAME_BYTES, expand_path, if_closed, is_file, is_possible, path_exists
from finetune.utils.registry import EXPORTERS, LOSSES, READERS
from finetune.utils.text import nearest

OPTIONS = ConfigDict(extra="forbid")
HUB_ID_EXAMPLE = "such as depth-anything/Depth-Anything-V2-Small"
DEFAULT_STEPS = 2000
# Head -> losses of a recipe that names none. Those of the relative heads are those of Depth Anything V2.
DEFAULT_LOSS: Mapping[str, tuple[Mapping[str, str | float], ...]] = {
    "metric": ({"kind": "silog"}, {"kind": "l1", "weight": 0.1}),
    "relative": ({"kind": "ssi"}, {"kind": "gradient", "weight": 2.0, "of": "aligned"}),
    "relative_depth": ({"kind": "ssi"}, {"kind": "gradient", "weight": 2.0, "of": "aligned"}),
}
# Losses of an entry with a teacher's labels of unknown scale and shift, where neither it nor the recipe names any.
LOSS_OF_RELATIVE_LABELS: tuple[Mapping[str, str | float], ...] = ({"kind": "ssi", "trim": 0.1},)
MIN_PATCHES, MAX_PATCHES = 4, 300  # a side of the input
MIN_ZOOM, MAX_ZOOM = 0.25, 4.0  # of augment.zoom
Count = Annotated[int, Field(ge=1)]
FewerThanMemory = Annotated[int, Field(ge=1, le=65536)]  # a number of things that are in memory at the same time
Share = Annotated[float, Field(ge=0, le=1)]
ShareBelowOne = Annotated[float, Field(ge=0, lt=1)]
Percent = Annotated[float, Field(ge=0, le=100)]
Positive = Annotated[float, Field(gt=0)]
LearningRate = Annotated[float, Field(gt=0, le=1)]
Meters = Annotated[float, Field(gt=0, le=MAX_DEPTH_M)]


def require_checkpoint(checkpoint: str | None) -> None:
    """
    Raises:
        RecipeError: it is neither a path that exists nor written like a hub id.
    """
    if checkpoint is None:
        return
    path = expand_path(checkpoint)
    if not path_exists(path) and not is_hub_id(checkpoint):  # the loader knows whether the id exists
        near = nearest_path(path)
        perhaps = if_closed(path) or ("" if near is None else f"; perhaps {near}")
        raise RecipeError("checkpoint", checkpoint, f"a file that exists, or a hub id {HUB_ID_EXAMPLE}{perhaps}")


def _require_annotations(annotations: str | None) -> None:
    """
    Raises:
        RecipeError: there is no such file.
    """
    if annotations is not None and not is_file(path := expand_path(annotations)):
        expected = f"a JSON file in the layout of DA-2K's annotations.json{if_closed(path)}"
        raise RecipeError("annotations", annotations, expected)


def _whole_patches(size: tuple[int, int]) -> tuple[int, int]:
    least, most = MIN_PATCHES, MAX_PATCHES
    wrong = [side for side in size if side % PATCH or not least <= side // PATCH <= most]
    if wrong:
        lowers = {side: min(max(side // PATCH, least), most - 1) * PATCH for side in wrong}
        good = ", ".join(f"{lower} or {lower + PATCH} instead of {side}" for side, lower in lowers.items())
        sizes = f"height and width, multiples of {PATCH} from {least * PATCH} to {most * PATCH}"
        raise RecipeError("input_size", list(size), f"{sizes}: {good}")
    return size


def require_folder_name(name: str) -> str:
    # While a run uses the folder, a hidden file with this name and an ending is next to it.
    most = MAX_NAME_BYTES - len("..lock")
    if re.search(r"[/\\\x00-\x1f]", name) or name.strip(" .") != name or not is_possible(name, most):
        folder = f"the name of one folder: no slash, no dot or space at either end, at most {most} bytes"
        raise RecipeError("name", name, folder)
    return name


def _output(output: str) -> str:
    if not is_possible(output):
        raise RecipeError("output", output, f"a folder, with no name of more than {MAX_NAME_BYTES} bytes and no NUL")
    return output


def _protocols(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(names)) < len(names):
        raise RecipeError("protocols", list(names), "each name once")
    for name in names:
        protocol_settings(name)
    return names


def _targets_once(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(names)) < len(names):
        raise RecipeError("targets", list(names), "each name once")
    return names


def _zoom(ends: tuple[float, float]) -> tuple[float, float]:
    if not MIN_ZOOM <= ends[0] <= ends[1] <= MAX_ZOOM:
        raise RecipeError("zoom", list(ends), f"[least, most] between {MIN_ZOOM} and {MAX_ZOOM:g}, such as [1.0, 1.6]")
    return ends


def _exporters(names: tuple[str, ...]) -> tuple[str, ...]:
    unknown = [name for name in names if name not in EXPORTERS]
    near = [known for name in unknown if (known := nearest(name, sorted(EXPORTERS)))]
    if unknown or len(set(names)) < len(names):
        perhaps = f"; perhaps {', '.join(near)}" if near else ""
        raise RecipeError("export", list(names), f"a list out of {', '.join(sorted(EXPORTERS))}, each once{perhaps}")
    return names


Checkpoint = Annotated[
    Annotated[str, Field(min_length=1)] | None,
    OnDisk(require_checkpoint, f"a file, a hub id {HUB_ID_EXAMPLE}, or null"),
]
Annotations = Annotated[
    Annotated[str, Field(min_length=1)] | None,
    OnDisk(_require_annotations, "a JSON file in the layout of DA-2K's annotations.json, or null"),
]
Size = Annotated[tuple[int, int], AfterValidator(_whole_patches)]
FolderName = Annotated[str, Field(min_length=1), AfterValidator(require_folder_name)]
Protocols = Annotated[tuple[str, ...], Field(min_length=1), AfterValidator(_protocols)]
Exporters = Annotated[tuple[str, ...], AfterValidator(_exporters)]
LoraTarget = Literal["qkv", "proj", "fc1", "fc2"]


@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class LoraOptions:
    """``model.lora``: low-rank adapters, read when ``model.train`` is ``lora``."""

    rank: Annotated[int, Field(ge=1, le=512)] = 16  # columns of each adapter; more learn more and weigh more
    alpha: Positive = 32.0  # an adapter's output is scaled by alpha / rank
    dropout: ShareBelowOne = 0.0  # share of an adapter's inputs that are dropped in training
    # Which linear layers of a block get an adapter: input and output of the attention, both of the feed-forward part.
    targets: Annotated[tuple[LoraTarget, ...], Field(min_length=1), AfterValidator(_targets_once)] = (
        "qkv",
        "proj",
        "fc1",
        "fc2",
    )
    last_blocks: Count | None = None  # how many blocks, counted from the last, get adapters; null: all


@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class ModelOptions:
    """``model``: where the weights come from, what the network predicts, and which of its weights are trained."""

    # File, or hub id such as depth-anything/Depth-Anything-V2-Small; null: every weight is random, from the seed.
    checkpoint: Checkpoint
    checkpoint_kind: KindOption = "auto"  # for an official .pth, which does not say it itself
    checkpoint_max_depth_m: Meters | None = None  # meters; for a metric .pth that has no .json next to it
    # Version of Depth Anything, for a .pth that has no .json next to it: names and shapes are the same. auto: V2.
    checkpoint_version: Literal["auto", "v1", "v2"] = "auto"
    # Height and width in pixels that a .pth without a .json, or a folder without its processor, was trained at.
    checkpoint_input_size: Size | None = None
    encoder: Literal["auto", "tiny", "vits", "vitb", "vitl", "vitg"] = "auto"  # auto: as in the checkpoint
    # metric: predicts meters; relative: inverse depth of unknown scale and shift; relative_depth: depth of unknown
    # scale and shift, as Depth Anything 3 predicts it.
    head: Kind = "metric"
    # Of a metric head. sigmoid: from 0 to max_depth_m; exp: no upper end, as in Depth Anything 3, so that max_depth_m
    # only says which depth is out of range. Of the exports only onnx, openvino and adapter can hold exp.
    activation: Literal["sigmoid", "exp"] = "sigmoid"
    # Meters; the farthest depth that the metric head can predict. For a relative head, and for activation exp, depth
    # beyond it is out of range; null, for a relative head: only what is infinitely far is.
    max_depth_m: Meters | None = None
    # What is taken from the checkpoint. scratch: only the encoder; pretrained: everything but the last layer, which
    # starts small; calibrated: as pretrained, with the last layer fitted to the training data; keep: every weight.
    # auto: keep for a checkpoint of this head's kind and activation, calibrated for a metric head on any other, scratch
    # without a checkpoint.
    decoder_init: Literal["auto", "scratch", "pretrained", "calibrated", "keep"] = "auto"
    # When every weight of a metric checkpoint is kept and its max depth differs from this one. refuse: the run stops
    # and says so; rescale: its predictions are scaled by the ratio.
    on_max_depth: Literal["refuse", "rescale"] = "refuse"
    # all: every weight; decoder: the encoder is frozen; lora: adapters in the encoder, and all of the decoder.
    train: Literal["all", "decoder", "lora"] = "all"
    lora: LoraOptions = LoraOptions()  # for train: lora

    def __post_init__(self) -> None:
        if self.checkpoint_kind in ("relative", "relative_depth") and self.checkpoint_max_depth_m is not None:
            raise Contradiction(
                "checkpoint_max_depth_m",
                self.checkpoint_max_depth_m,
                "null, since a relative checkpoint has no max depth",
                other="checkpoint_kind",
                other_value=self.checkpoint_kind,
            )
        if self.on_max_depth == "rescale" and self.decoder_init not in ("auto", "keep"):
            found = self.on_max_depth
            kept = "refuse, since only a last layer that is kept has predictions to scale"
            raise Contradiction("on_max_depth", found, kept, other="decoder_init", other_value=self.decoder_init)
        if self.activation == "exp" and self.on_max_depth == "rescale":
            unbounded = "refuse, since an exponential has no max depth that could scale its predictions"
            raise Contradiction("on_max_depth", self.on_max_depth, unbounded, other="activation", other_value="exp")
        if self.checkpoint is None:
            self._require_drawn()
        if self.head != "metric":
            self._require_relative()
        elif self.max_depth_m is None:
            raise RecipeError(
                "max_depth_m",
                None,
                f"a number above 0 and at most {MAX_DEPTH_M}: the farthest meters that head metric can predict",
            )

    @property
    def head_activation(self) -> Activation:
        """The activation of the head, of whatever kind."""
        of_head: dict[Kind, Activation] = {"metric": self.activation, "relative": "relu", "relative_depth": "exp"}
        return of_head[self.head]

    @property
    def head_max_depth_m(self) -> float | None:
        """The max depth of the head, meters; None for a relative head."""
        return self.max_depth_m if self.head == "metric" else None

    def _require_drawn(self) -> None:
        """Check a model without a checkpoint: nothing else names the encoder, and there are no weights to keep."""
        if self.encoder == "auto":
            either = f"a file or a hub id {HUB_ID_EXAMPLE}, or, to start from random weights, an encoder such as tiny"
            raise Contradiction("checkpoint", None, either, other="encoder", other_value=self.encoder)
        if self.checkpoint_kind != "auto":
            raise Contradiction("checkpoint_kind", self.checkpoint_kind, "auto", other="checkpoint", other_value=None)
        if self.checkpoint_max_depth_m is not None:
            depth = self.checkpoint_max_depth_m
            raise Contradiction("checkpoint_max_depth_m", depth, "null", other="checkpoint", other_value=None)
        if self.checkpoint_version == "v1":
            version = self.checkpoint_version
            raise Contradiction("checkpoint_version", version, "auto", other="checkpoint", other_value=None)
        if self.on_max_depth == "rescale":
            found = self.on_max_depth
            raise Contradiction("on_max_depth", found, "refuse", other="checkpoint", other_value=None)
        if self.train == "lora":
            drawn = "all, since there are no weights for adapters to adapt"
            raise Contradiction("train", self.train, drawn, other="checkpoint", other_value=None)
        if self.decoder_init not in ("auto", "scratch"):
            drawn = "scratch, since every weight is random"
            raise Contradiction("decoder_init", self.decoder_init, drawn, other="checkpoint", other_value=None)

    def _require_relative(self) -> None:
        """Check a relative head: some keys need a metric one."""
        if self.activation == "exp":
            only = "sigmoid, its default: only a metric head has a choice"
            raise Contradiction("activation", self.activation, only, other="head", other_value=self.head)
        if self.decoder_init == "calibrated":
            others = "auto, keep, pretrained or scratch; calibrated solves for meters"
            raise Contradiction("decoder_init", self.decoder_init, others, other="head", other_value=self.head)
        if self.on_max_depth == "rescale":
            meters = "refuse, since a relative head has no max depth"
            raise Contradiction("on_max_depth", self.on_max_depth, meters, other="head", other_value=self.head)
        if self.checkpoint_kind not in ("auto", self.head):
            farther = f"since bigger is nearer to this head and farther to a {self.checkpoint_kind} one"
            of_depth = "auto or relative_depth, which is what this head predicts"
            relative = f"a relative checkpoint, {farther}" if self.head == "relative" else of_depth
            raise Contradiction("checkpoint_kind", self.checkpoint_kind, relative, other="head", other_value=self.head)


@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class LossTerm:
    """One entry of ``loss``, or of the ``loss`` of a data entry; its other keys are the options of that loss."""

    kind: Annotated[str, Names(LOSSES, into="loss")]  # a name in registry.LOSSES
    weight: Positive = 1.0  # the term is multiplied by it before the terms are added
    # image: mean over images, however few valid pixels one has; pixel: an image weighs as much as it has valid pixels.
    # Both over all micro-batches and processes of a step.
    reduction: Reduction = "image"
    loss: Any  # the loss itself, a LossOfImages, whose ``head`` is metric or relative


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid", arbitrary_types_allowed=True))
class DataEntry:
    """One entry of ``data.train`` or ``data.val``; its other keys are the options of the reader."""

    reader: Annotated[str, Names(READERS, into="source")]  # a name in registry.READERS
    source: Annotated[Reader, SkipValidation]  # the reader itself, made of the other keys
    weight: Positive = 1.0  # how often its samples are drawn, relative to the other entries
    # What depth beyond model.max_depth_m, and sky, count as in training. ignore: not measured; ceiling: as max_depth_m,
    # and for a head of inverse depth as infinitely far, which is 0.
    out_of_range: Literal["ignore", "ceiling"] = "ignore"
    # The losses of its samples, in place of the recipe's ``loss``; null: those. Only in data.train.
    loss: tuple[LossTerm, ...] | None = None

    def __post_init__(self) -> None:
        # Checked here, because pydantic's own message does not say what to write.
        if not isinstance(self.source, Reader):
            cls = type(self.source)
            parent = f"{Reader.__module__}.{Reader.__name__}"
            expected = f"a reader that inherits {parent}: {cls.__module__}.{cls.__qualname__} does not"
            raise RecipeError("reader", self.reader, expected)
        if self.loss == ():
            raise RecipeError("loss", [], "one or more losses, or null for those of the recipe")


@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class CameraKeys:
    """``data.camera``: whether depth is learned for the lens of the training data, or for any lens."""

    # none: labels are meters, right for the lens of the training data; canonical: labels are scaled to one canonical
    # lens, every entry must give intrinsics, and predict needs those of its images.
    mode: CameraMode = "none"
    # Focal length of the canonical lens at the network's size, pixels; auto: the median of data.train, or that of a
    # canonical checkpoint whose every weight is kept.
    focal_px: Literal["auto"] | Positive = "auto"

    def __post_init__(self) -> None:
        if self.mode == "none" and self.focal_px != "auto":
            raise Contradiction(
                "focal_px",
                self.focal_px,
                "auto, since labels are scaled to a focal length in mode canonical alone",
                other="mode",
                other_value=self.mode,
            )


@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class DataOptions:
    """``data``: where images and depth come from, and at what size the network sees them."""

    input_size: Size  # height, width, pixels; multiples of 14
    train: Annotated[tuple[DataEntry, ...], Field(min_length=1)]  # mixed by weight
    val: Annotated[tuple[DataEntry, ...], Field(min_length=1)]  # each sample once
    camera: CameraKeys = CameraKeys()
    # Processes that read ahead, for each training process; 0: none. auto: on a GPU one for each core but one, up to 16;
    # on a CPU, whose cores the network needs, up to 2.
    workers: Literal["auto"] | Annotated[int, Field(ge=0, le=256)] = "auto"
    # Batches that each of them reads ahead; auto: 4 on a GPU, 2 on a CPU.
    prefetch: Literal["auto"] | Annotated[int, Field(ge=1, le=64)] = "auto"
    # Put batches where a GPU copies from while the step goes on; auto: on a GPU of CUDA.
    pin_memory: Literal["auto"] | bool = "auto"
    # When a training sample cannot be read. stop: the run ends and names it. skip: the sample is named, counted, and
    # replaced by another frame of its entry, which depends only on the seed and the sample's number; the run ends once
    # more than 10, and more than 1 %, of the samples could not be read. A validation sample that cannot be read always
    # ends the run: its score would be over fewer images than the others of its table.
    on_bad_sample: Literal["stop", "skip"] = "stop"
    # Findings about the data that are intended and must not stop a run. Only findings that are judgments can be listed.
    accept: tuple[Accepted, ...] = ()
    # true: a frame may be in both train and val; the scores then say nothing about frames that were not trained on.
    val_may_repeat_train: bool = False
    # For images of more than 8 bits: the stored numbers that become black and white, such as 7200 and 8100 of a thermal
    # camera; or percentiles of each image's own numbers. They are saved in the weights, and predict applies them. null:
    # 16-bit values are divided by 257, as for a camera that uses all of them.
    image_black: float | None = None
    image_white: float | None = None
    image_percentiles: tuple[Percent, Percent] | None = None  # instead of the two, such as [1, 99]
    # How image files are decoded. reduced: a JPEG that is at least two or four times as large as the network sees it is
    # decoded at a half or a quarter of its size, which is quicker. It is saved in the weights, and evaluation and
    # predict read files the same way. An image that Python gives as an array is as it is.
    decode: Decode = "full"

    def __post_init__(self) -> None:
        if self.image_percentiles is not None:
            for key in ("image_black", "image_white"):
                value = getattr(self, key)
                if value is not None:
                    raise Contradiction(
                        key,
                        value,
                        "only one of them; remove the other or make it null",
                        other="image_percentiles",
                        other_value=list(self.image_percentiles),
                    )
            if not self.image_percentiles[0] < self.image_percentiles[1]:
                raise RecipeError("image_percentiles", list(self.image_percentiles), "the lower first, such as [1, 99]")
        elif (self.image_black is None) != (self.image_white is None):
            given, lacking = ("image_white", "image_black")[:: 1 if self.image_black is None else -1]
            value = getattr(self, given)
            raise Contradiction(
                given, value, f"both of them, or neither; write {lacking} too", other=lacking, other_value=None
            )
        elif self.image_black is not None and self.image_white is not None and self.image_black >= self.image_white:
            raise RecipeError("image_white", self.image_white, f"more than image_black, {self.image_black:g}")
        set_image_levels([entry.source for entry in (*self.train, *self.val)], self.image_levels)

    @property
    def image_levels(self) -> ImageLevels | None:
        """What is black and white in images of more than 8 bits; None if no key says."""
        if self.image_percentiles is not None:
            return ImageLevels(percentiles=self.image_percentiles)
        if self.image_black is None:
            return None
        return ImageLevels(black=self.image_black, white=self.image_white)


@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class StrongOptions:
    """``augment.strong``: changes of images that a teacher labeled, who saw them clean; probabilities."""

    color: Share = 0.0  # brightness, contrast and saturation by half, hue by a quarter of its circle
    blur: Share = 0.0  # Gaussian, 0.1 to 2 pixels
    # CutMix: a box of another frame of the entry is pasted; the losses are taken for both parts, each as an image.
    cutmix: Share = 0.0

    @property
    def is_on(self) -> bool:
        """Whether anything is changed."""
        return bool(self.color or self.blur or self.cutmix)


@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class AugmentOptions:
    """``augment``: random changes of a training sample; flip, color and degrade are probabilities."""

    flip: Share = 0.5  # image, depth and camera are mirrored left to right
    color: Share = 0.5  # brightness, contrast, saturation and hue of the image are changed
    color_strength: Annotated[float, Field(ge=0, le=4)] = 1.0  # multiplies how far color changes go
    degrade: Share = 0.0  # apply one to three of: light, tint, blur, coarser pixels, noise, compression
    # Least and most by which a frame is enlarged before its window is cut; below 1 only where the frame fills the
    # window. Depth is divided by the zoom; with data.camera.mode canonical the focal length is multiplied by it.
    zoom: Annotated[tuple[float, float], AfterValidator(_zoom)] = (1.0, 1.0)
    strong: StrongOptions = StrongOptions()  # for entries with a teacher's labels


@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class OptimOptions:
    """``optim``: AdamW, and its learning rate from step to step."""

    lr: LearningRate = 5e-6  # peak learning rate of the encoder
    lr_decoder: LearningRate = 5e-5  # peak learning rate of decoder and head
    weight_decay: Share = 0.01  # AdamW's
    betas: tuple[ShareBelowOne, ShareBelowOne] = (0.9, 0.999)  # AdamW's
    clip_norm: Positive = 1.0  # gradients are scaled down to this norm when theirs is larger
    schedule: Literal["poly", "cosine", "constant"] = "poly"  # from the peak down to 0; poly: (1 - step / steps) ** 0.9
    # Steps over which the rate rises from 0 to its peak; null: 50, or a tenth of a run of less than 500 steps.
    warmup_steps: Annotated[int, Field(ge=0)] | None = None
    # How much of the moving average of the weights each step keeps; the average is evaluated and saved; 0: no average.
    ema_decay: ShareBelowOne = 0.0


@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class RunOptions:
    """``run``: how many steps, of what size, how often to evaluate and save. A step is one update of the weights."""

    steps: Count | None = None  # optimizer steps of the whole run; this or epochs; load_recipe puts 2000 for neither
    epochs: Count | None = None  # passes over the training data; this or steps
    batch_size: FewerThanMemory = 4  # samples for each process and micro-batch
    accumulate: FewerThanMemory = 1  # micro-batches added up to one step
    # auto: as accelerate is configured; otherwise bf16 if the device is good at it, else fp32.
    precision: Literal["auto", "fp32", "fp16", "bf16"] = "auto"
    # true: a GPU rounds the factors of float32 matrix products and convolutions to 10 bits, which is faster. It does so
    # in the evaluation too, so the tables differ from a CPU's in the third digit.
    tf32: bool = False
    # Use kernels that give the same bits each time, and name operations that have none; slower on a GPU.
    deterministic: bool = False
    compile: bool = False  # use torch.compile: minutes at the start, then faster steps
    gradient_checkpointing: bool = False  # compute activations twice instead of storing them: less memory, more time
    threads: Annotated[int, Field(ge=1, le=1024)] | None = (
        None  # CPU threads of each process; null: usable cores / processes on this machine
    )
    log_every_steps: Count = 10  # rows of metrics.csv
    # Who gets rows, panels and tables, besides metrics.csv. wandb is offline unless WANDB_MODE says otherwise, mlflow a
    # database in the run folder unless MLFLOW_TRACKING_URI names a server; each is an extra to install.
    trackers: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = ("tensorboard",)
    evaluate_every_steps: Count = 100  # evaluations on data.val, each of which can become best/
    save_every_steps: Count = 100  # checkpoints to resume from
    keep_checkpoints: Count = 2  # the newest that stay on disk
    # Train only on the batches of the first so many steps, again and again, to see whether the network can overfit: if
    # its AbsRel on them ends above 0.05, data, loss or learning rates are wrong, and the run ends with exit status 1.
    overfit_batches: Count | None = None

    def __post_init__(self) -> None:
        if len({*self.trackers}) < len(self.trackers):
            raise RecipeError("trackers", list(self.trackers), "each once, such as [tensorboard, wandb]")
        if self.steps is not None and self.epochs is not None:
            raise Contradiction(
                "epochs",
                self.epochs,
                "only one of them; remove the other or make it null",
                other="steps",
                other_value=self.steps,
            )
        if self.overfit_batches is not None and self.steps is not None and self.overfit_batches > self.steps:
            raise Contradiction(
                "overfit_batches",
                self.overfit_batches,
                "fewer, so that each is trained on more than once, such as 1",
                other="steps",
                other_value=self.steps,
            )


@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class RetentionOptions:
    """``evaluation.retention``: general data on which base and fine-tuned weights are compared at the end of a run.

    Where nothing is named, nothing is compared. ``retention: default`` stands for ``drawn: 200``.
    """

    # How many of the 200 general frames of 112x154 pixels, drawn once into the user's cache; 0: none.
    drawn: Annotated[int, Field(ge=0, le=MAX_DRAWN_FRAMES)] = 0
    annotations: Annotations = None  # pairs of points as in DA-2K's annotations.json
    images: Annotated[str, Field(min_length=1)] | None = None  # the folder that its paths start from; null: the file's
    entries: tuple[DataEntry, ...] = ()  # frames with measured depth, as in data.val

    def __post_init__(self) -> None:
        if self.images is not None and self.annotations is None:
            raise Contradiction(
                "images",
                self.images,
                "null, since it is the folder of annotations",
                other="annotations",
                other_value=None,
            )

    @property
    def is_on(self) -> bool:
        """Whether anything is compared."""
        return bool(self.drawn or self.annotations or self.entries)


@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class EvaluationOptions:
    """``evaluation``: how the model is scored, and which score chooses ``best/``."""

    # Names of finetune/evaluation/protocol_settings.py, a table each. plain: at the size of the measured depth, per
    # image, clamped to the range, no alignment. For a relative head plain+align=scale_shift_inverse: the same after
    # scale and shift were fitted to each image in inverse depth. Published tables: nyu_eigen, kitti_eigen_garg,
    # kitti_garg_full, kitti_eigen, reference_script. Any with keys changed: kitti_eigen_garg+flip=true. null: the one
    # for model.head.
    protocols: Protocols | None = None
    # The entry of data.val, such as data.val.1, whose frames alone choose best/ and are evaluated while training; the
    # tables at the end are then over the other entries. null: all frames of data.val do both, which flatters a little.
    choose_on: str | None = None
    # The metric, under the first protocol, by which best/ is chosen.
    best: Literal["abs_rel", "sq_rel", "rmse", "rmse_log", "log10", "silog", "delta1", "delta2", "delta3"] = "abs_rel"
    min_depth_m: Meters = 0.001  # meters; nearer measurements are not scored, unless a protocol has its own range
    max_depth_m: Meters | None = None  # meters; farther measurements are not scored; null: model.max_depth_m
    retention: RetentionOptions = RetentionOptions()  # what the end of a run says about general data; default: nothing

    def __post_init__(self) -> None:
        if self.choose_on is not None and not re.fullmatch(r"data\.val\.\d{1,3}", self.choose_on):
            raise RecipeError("choose_on", self.choose_on, "an entry of data.val such as data.val.1, or null")
        if self.max_depth_m is not None and self.max_depth_m <= self.min_depth_m:
            raise Contradiction(
                "max_depth_m",
                self.max_depth_m,
                "a larger max_depth_m than min_depth_m",
                other="min_depth_m",
                other_value=self.min_depth_m,
            )


class TrainingTerm(NamedTuple):
    """A loss of a step.

    Attributes:
        name: its own among the losses of the step; a kind that is there twice is numbered.
        entries: numbers of the entries of ``data.train`` whose samples it is for; None: all samples.
    """

    name: str
    weight: float
    reduction: Reduction
    loss: Any
    entries: frozenset[int] | None


def _number_terms(terms: Sequence[LossTerm], ending: str, entries: frozenset[int] | None) -> list[TrainingTerm]:
    kinds = [term.kind for term in terms]
    names = [
        f"{kind}{ending}" if kinds.count(kind) == 1 else f"{kind}{ending}_{kinds[: i + 1].count(kind)}"
        for i, kind in enumerate(kinds)
    ]
    return [
        TrainingTerm(name=name, weight=term.weight, reduction=term.reduction, loss=term.loss, entries=entries)
        for name, term in zip(names, terms, strict=True)
    ]


@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class Recipe:
    """Everything that defines a run. Read it with ``load_recipe``."""

    name: FolderName  # the run folder is <output>/<name>; default: the file's name before .yaml
    output: Annotated[str, Field(min_length=1), AfterValidator(_output)] = "runs"  # folder of run folders; ~ is home
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = 0  # decides everything random
    model: ModelOptions
    data: DataOptions
    augment: AugmentOptions = AugmentOptions()
    # Their weighted sum. Default: DEFAULT_LOSS of model.head; for a metric head silog, and l1 with weight 0.1.
    loss: Annotated[tuple[LossTerm, ...], Field(min_length=1)]
    optim: OptimOptions = OptimOptions()
    run: RunOptions = RunOptions()
    evaluation: EvaluationOptions = EvaluationOptions()
    export: Exporters = ("official",)  # names in registry.EXPORTERS, written at the end of the run

    # Dotted key -> where it was written. Not a key of the file, and not part of what the recipe is: two recipes that
    # differ in it alone are equal. It is a field so that `dataclasses.replace` keeps it.
    places: Annotated[Mapping[str, str], Field(exclude=True)] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        for check in CROSS_CHECKS:
            check(cast(Sections, vars(self)))

    @property
    def depth_range_m(self) -> tuple[float, float]:
        """The range that is scored, meters: nearer and farther measurements are left out."""
        max_depth_m = self.evaluation.max_depth_m or self.model.max_depth_m
        assert max_depth_m is not None, "require_scored_range refuses such a recipe"
        return self.evaluation.min_depth_m, max_depth_m

    @property
    def protocols(self) -> tuple[str, ...]:
        """Names of the protocols it is scored by."""
        return self.evaluation.protocols or (PROTOCOL_OF_HEAD[self.model.head],)

    @property
    def training_terms(self) -> tuple[TrainingTerm, ...]:
        """The losses of a step: those of ``loss``, then those of the entries of ``data.train`` that have their own.

        A recipe whose entries have none has the terms of ``loss``, for all samples.
        """
        own = {i: entry.loss for i, entry in enumerate(self.data.train) if entry.loss is not None}
        shared = frozenset(range(len(self.data.train))) - own.keys()
        found: list[TrainingTerm] = []
        if shared:
            found += _number_terms(self.loss, "", frozenset(shared) if own else None)
        for i, terms in own.items():
            found += _number_terms(terms, f"_train_{i}", frozenset({i}))
        return tuple(found)

    @property
    def choosing_entries(self) -> dict[str, DataEntry]:
        """The entries of ``data.val`` that choose ``best/``, by name."""
        named = {f"data.val.{i}": entry for i, entry in enumerate(self.data.val)}
        key = self.evaluation.choose_on
        return {key: named[key]} if key else named

    @property
    def scored_entries(self) -> dict[str, DataEntry]:
        """The entries of ``data.val`` that the tables score, by name."""
        named = {f"data.val.{i}": entry for i, entry in enumerate(self.data.val)}
        return {name: entry for name, entry in named.items() if name != self.evaluation.choose_on}

    def where(self, key: str) -> str:
        """
        Args:
            key: dotted, ``loss.0.lam``.

        Returns:
            Where it was written, or else its nearest parent: ``recipes/x.yaml:12`` or ``command line``.
        """
        while key and key not in self.places:
            key = key.rpartition(".")[0]
        return self.places.get(key, "the recipe")
