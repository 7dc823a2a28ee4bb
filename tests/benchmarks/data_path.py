"""Time of a training sample from its files to a batch: ours, ours when packed, the reference, and decoding alone.

    pip install --no-deps jkp-depth-anything-v2
    DEPTH_SAMPLES=/path/to/samples PYTHONPATH=. python tests/benchmarks/data_path.py [--only kitti_518 ...] [--passes 3]

The reference is the training data set of Depth Anything V2 (``metric_depth/dataset``): the whole image is resized in
float64 and normalized, depth and mask are resized by nearest neighbor, then the crop is cut. It mirrors on the device,
and does not change colors; ours does both here, at 0.5, and leaves the normalization to the device.

Packed is what ``finetune pack`` writes of these files by its defaults. All others read the same 32 different files, one
sample after the other in one process on one thread, in turn batch by batch, without a cache. Figures are milliseconds
of processor time, which other processes disturb less than a clock: the mean of the middle 80 % of samples, plus each
sample's share of its batch's collation. Hand-over is what a batch costs the two processes between which it goes, again
in processor time. Exits 1 where a ratio is above its limit.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, JpegImagePlugin

from finetune.data import coded_depth, preprocessing, training_dataset
from finetune.data.augmentation import Augmentation
from finetune.data.dataloader import collate, training_batches
from finetune.data.preprocessing import Preprocessing, Window
from finetune.data.reader import Reader
from finetune.data.readers import files as frame_files
from finetune.data.readers.packed import Packed
from finetune.data.readers.pairs import Pairs
from finetune.data.samplers import DistributedBatchSampler
from finetune.data.training_dataset import DepthRangePolicy, TrainingSamples
from finetune.prepare.packing.pack_plan import PackChoice
from finetune.prepare.packing.run_pack import PackOptions, pack_recipe
from finetune.recipe.load import load_recipe
from finetune.utils.memory import keep_freed_memory

FILES = 32
BATCH_SIZE = 4
LARGE = (1440, 1920)
STAGES = ("read", "decode", "to meters", "window", "augment", "collate")


@dataclass(frozen=True, kw_only=True)
class Case:
    """Frames, the size at which the network sees them, and what ours may cost of the reference."""

    name: str
    frames: str
    input_size: tuple[int, int]
    meters_per_unit: float
    max_depth_m: float
    max_ratio: float | None
    max_packed_ratio: float | None = None


CASES = (
    Case(
        name="kitti_whole",
        frames="kitti",
        input_size=(350, 1162),
        meters_per_unit=1 / 256,
        max_depth_m=80.0,
        max_ratio=0.60,
        max_packed_ratio=0.20,
    ),
    Case(
        name="kitti_518",
        frames="kitti",
        input_size=(518, 518),
        meters_per_unit=1 / 256,
        max_depth_m=80.0,
        max_ratio=0.40,
        max_packed_ratio=0.20,
    ),
    Case(
        name="nyu_518",
        frames="nyu",
        input_size=(518, 686),
        meters_per_unit=0.001,
        max_depth_m=10.0,
        max_ratio=0.60,
        max_packed_ratio=0.35,
    ),
    Case(
        name="realsense_lab",
        frames="lab",
        input_size=(252, 336),
        meters_per_unit=0.001,
        max_depth_m=10.0,
        max_ratio=None,
    ),
    Case(
        name="1440x1920",
        frames="large",
        input_size=(518, 686),
        meters_per_unit=0.001,
        max_depth_m=10.0,
        max_ratio=0.50,
        max_packed_ratio=0.10,
    ),
)


def write_frames(kind: str, samples: Path, folder: Path) -> None:
    """``FILES`` different frames of the samples in ``folder``, in the formats and at the sizes of the samples."""
    (folder / "color").mkdir(parents=True)
    (folder / "depth").mkdir()
    if kind == "kitti":
        drive = "2011_09_26_drive_0013_sync"
        images = sorted((samples / "kitti_depth/raw").rglob("image_02/data/*.png"))
        depths = [
            samples / f"kitti_depth/data_depth_annotated/val/{drive}/proj_depth/groundtruth/image_02" / image.name
            for image in images
        ]
    elif kind == "nyu":
        images = sorted((samples / "nyu/sync").rglob("rgb_*.jpg"))
        depths = [image.with_name(f"sync_depth_{image.stem[-5:]}.png") for image in images]
    else:
        images = sorted((samples / "realsense_lab_seq/rgb").glob("*.jpg"))
        depths = [samples / "realsense_lab_seq/depth" / f"{image.stem}.png" for image in images]
    for i in range(FILES):
        _write_frame(images[i % len(images)], depths[i % len(images)], folder, i, kind)


def _write_frame(image_path: Path, depth_path: Path, folder: Path, i: int, kind: str) -> None:
    """One frame, moved sideways by as much as no other, so that no two files are equal; noise where it is enlarged."""
    picture = Image.open(image_path)
    image = np.roll(np.asarray(picture.convert("RGB")), 8 * i, axis=1)
    depth = np.roll(_read(depth_path, cv2.IMREAD_UNCHANGED), 8 * i, axis=1)
    if kind == "large":
        # As a phone gives it: depth of few pixels, brought to the size of the photograph by picking values.
        draw = np.random.default_rng(i)
        image = cv2.resize(image, LARGE[::-1], interpolation=cv2.INTER_CUBIC).astype(np.int16)
        image = np.clip(image + draw.normal(0, 1, image.shape), 0, 255).astype(np.uint8)
        depth = cv2.resize(depth, LARGE[::-1], interpolation=cv2.INTER_NEAREST)
        Image.fromarray(image).save(folder / f"color/{i:02}.jpg", quality=90)
    elif isinstance(picture, JpegImagePlugin.JpegImageFile):
        sampling = JpegImagePlugin.get_sampling(picture)
        Image.fromarray(image).save(folder / f"color/{i:02}.jpg", qtables=picture.quantization, subsampling=sampling)
    else:
        # As KITTI's own files: other filters of PNG take half as long again to decode.
        of_kitti = [cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_SUB, cv2.IMWRITE_PNG_COMPRESSION, 6]
        cv2.imwrite(str(folder / f"color/{i:02}.png"), cv2.cvtColor(image, cv2.COLOR_RGB2BGR), of_kitti)
    unfiltered = [cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE] if kind == "kitti" else []
    cv2.imwrite(str(folder / f"depth/{i:02}.png"), depth, [*unfiltered, cv2.IMWRITE_PNG_COMPRESSION, 6])


def _read(path: Path, flags: int) -> NDArray[Any]:
    pixels = cv2.imread(str(path), flags)
    assert pixels is not None, path
    return pixels


def make_samples(case: Case, reader: Reader) -> TrainingSamples:
    """Our training samples of a case."""
    return TrainingSamples(
        [reader],
        [1.0],
        preprocessing=Preprocessing(input_size=case.input_size),
        augmentation=Augmentation(flip=0.5, color=0.5),
        ranges=[DepthRangePolicy(max_depth_m=case.max_depth_m)],
        seed=0,
    )


def files_reader(case: Case, folder: Path) -> Pairs:
    """The files of a case."""
    return Pairs(root=str(folder), image_dir="color", depth_dir="depth", meters_per_unit=case.meters_per_unit)


def pack(case: Case, folder: Path, output: Path) -> Packed:
    """The frames of a case as ``finetune pack`` writes them, by a recipe with the size of the case."""
    entry = {
        "reader": "pairs",
        "root": str(folder),
        "image_dir": "color",
        "depth_dir": "depth",
        "meters_per_unit": case.meters_per_unit,
    }
    recipe = {
        "model": {"checkpoint": None, "encoder": "tiny", "max_depth_m": case.max_depth_m},
        "data": {"input_size": case.input_size, "train": [entry], "val": [entry]},
    }
    path = output.with_suffix(".yaml")
    path.write_text(json.dumps(recipe))
    pack_recipe(load_recipe(path), PackOptions(output=output, choice=PackChoice()))
    return Packed(root=str(output / "train_0"))


class Reference:
    """The training samples of Depth Anything V2, by its own transforms."""

    def __init__(self, case: Case, folder: Path) -> None:
        from depth_anything_v2.util.transform import NormalizeImage, PrepareForNet, Resize

        height, width = case.input_size
        self._case, self._folder = case, folder
        self._names = sorted(path.name for path in (folder / "color").iterdir())
        self._draw = np.random.default_rng(0)
        self._steps = (
            Resize(width, height, True, True, 14, "lower_bound", cv2.INTER_CUBIC),
            NormalizeImage(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]),
            PrepareForNet(),
        )

    def __getitem__(self, k: int) -> dict[str, torch.Tensor]:
        name = self._names[k % FILES]
        image = cv2.cvtColor(_read(self._folder / "color" / name, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB) / 255.0
        depth = _read(self._folder / "depth" / f"{name[:2]}.png", cv2.IMREAD_UNCHANGED)
        depth = depth.astype("float32") * self._case.meters_per_unit
        sample = {"image": image, "depth": depth, "mask": (depth > 0) & (depth <= self._case.max_depth_m)}
        sample["mask"] = sample["mask"].astype("float32")
        for step in self._steps:
            sample = step(sample)
        height, width = self._case.input_size
        top, left = (
            int(self._draw.integers(whole - part + 1))
            for whole, part in zip(sample["depth"].shape, (height, width), strict=True)
        )
        cut = np.s_[..., top : top + height, left : left + width]
        return {key: torch.from_numpy(np.ascontiguousarray(value[cut])) for key, value in sample.items()}

    @staticmethod
    def collate(items: Sequence[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        """What PyTorch does by default."""
        return {key: torch.stack([item[key] for item in items]) for key in items[0]}


class Decoding:
    """The files of a sample, read and decoded, and nothing else."""

    def __init__(self, folder: Path) -> None:
        self._images, self._depths = (sorted((folder / part).iterdir()) for part in ("color", "depth"))

    def __getitem__(self, k: int) -> None:
        for path, flags in ((self._images[k % FILES], cv2.IMREAD_COLOR), (self._depths[k % FILES], -1)):
            cv2.imdecode(np.fromfile(path, np.uint8), flags)

    @staticmethod
    def collate(_: Sequence[None]) -> None:
        """Nothing."""


def time_in_turn(pipelines: dict[str, Any], passes: int) -> dict[str, float]:
    """Milliseconds of a sample of each pipeline: each makes a batch, then the next one does."""
    samples: dict[str, list[float]] = {name: [] for name in pipelines}
    batches: dict[str, list[float]] = {name: [] for name in pipelines}
    for first in range(0, passes * FILES, BATCH_SIZE):
        for name, pipeline in pipelines.items():
            items = []
            for k in range(first, first + BATCH_SIZE):
                started = time.process_time()
                items.append(pipeline[k])
                samples[name].append(time.process_time() - started)
            started = time.process_time()
            pipeline.collate(items)
            batches[name].append((time.process_time() - started) / BATCH_SIZE)
    # The first pass of a kind imports, and fills tables.
    return {
        name: 1000 * (middle_mean(samples[name][BATCH_SIZE:]) + middle_mean(batches[name][1:])) for name in pipelines
    }


def middle_mean(values: Sequence[float]) -> float:
    """The mean of the middle 80 %."""
    out = len(values) // 10
    return statistics.fmean(sorted(values)[out : len(values) - out])


class Ours:
    """Our samples, as a pipeline of this file."""

    def __init__(self, samples: TrainingSamples) -> None:
        self._samples = samples
        self.collate = collate

    def __getitem__(self, k: int) -> Any:
        return self._samples[k]


class StageClock:
    """Adds up the processor time of wrapped functions, without that of others that they call."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._within: list[float] = []

    def wrap(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, measured."""

        def measured(*args: Any, **kwargs: Any) -> Any:
            self._within.append(0.0)
            started = time.process_time()
            try:
                return function(*args, **kwargs)
            finally:
                spent = time.process_time() - started
                self.seconds[stage] = self.seconds.get(stage, 0.0) + spent - self._within.pop()
                if self._within:
                    self._within[-1] += spent

        return measured

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Measure the stages of our data path."""
        places = (
            (frame_files, "_read_content", "read"),
            (frame_files, "decode_pixels", "decode"),
            (coded_depth, "look_up", "to meters"),
            (preprocessing, "look_up", "to meters"),
            (Window, "__call__", "window"),
            (Augmentation, "__call__", "augment"),
            (training_dataset.TrainingSamples, "__getitems__", "other"),
        )
        with ExitStack() as stack:
            for owner, name, stage in places:
                stack.enter_context(patch.object(owner, name, self.wrap(stage, getattr(owner, name))))
            yield


def profile_stages(samples: TrainingSamples) -> dict[str, float]:
    """Milliseconds of a sample in each stage of our data path, in the order of ``STAGES``, and the rest."""
    clock = StageClock()
    measured_collate = clock.wrap("collate", collate)
    with clock.watch():
        for first in range(0, FILES, BATCH_SIZE):
            measured_collate([samples[k] for k in range(first, first + BATCH_SIZE)])
    return {stage: 1000 * clock.seconds.get(stage, 0.0) / FILES for stage in (*STAGES, "other")}


class _Ready:
    """Items that were made before, so that a loader of them does nothing but collate and hand over."""

    def __init__(self, items: Sequence[Any]) -> None:
        self._items = items

    def __getitems__(self, ks: Sequence[int]) -> list[Any]:
        return [self._items[k % len(self._items)] for k in ks]


def time_hand_over(samples: TrainingSamples) -> float:
    """Milliseconds of processor time that the hand-over of a sample costs both processes, without its collation."""
    items = samples.__getitems__(range(BATCH_SIZE))
    started = time.process_time()
    for _ in range(10):
        collate(items)
    collating = (time.process_time() - started) / 10
    count = 60
    order = DistributedBatchSampler(first_step=0, batch_size=BATCH_SIZE, accumulate=1, rank=0, world_size=1)
    # Only what is beyond a short run counts: a worker has to start, and imports this file.
    spent = []
    for batches in (10, 10 + count):
        before = _both_seconds()
        loader = training_batches(_Ready(items), order, workers=1, pin_memory=False)  # type: ignore[arg-type]
        for _ in range(batches):
            next(loader)
        loader.close()
        spent.append(_both_seconds() - before)
    return 1000 * ((spent[1] - spent[0]) / count - collating) / BATCH_SIZE


def _both_seconds() -> float:
    """Processor time of this process and of its children that have ended."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + ended.ru_utime + ended.ru_stime


def main() -> int:
    """Print figures and ratios of each case; 1 where a ratio is beyond its limit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=[case.name for case in CASES], help="cases to measure")
    parser.add_argument("--passes", type=int, default=3, help="how often each file is read")
    arguments = parser.parse_args()
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    keep_freed_memory()  # as in a worker; the reference gains by it too
    samples_folder = Path(os.environ["DEPTH_SAMPLES"]).resolve()
    beyond = []
    with tempfile.TemporaryDirectory() as temporary:
        for case in CASES:
            if arguments.only and case.name not in arguments.only:
                continue
            folder = Path(temporary, case.frames)
            if not folder.exists():
                write_frames(case.frames, samples_folder, folder)
            samples = make_samples(case, files_reader(case, folder))
            packed = make_samples(case, pack(case, folder, Path(temporary, f"packed_{case.name}")))
            pipelines = {
                "ours": Ours(samples),
                "packed": Ours(packed),
                "reference": Reference(case, folder),
                "decoding": Decoding(folder),
            }
            found = time_in_turn(pipelines, arguments.passes)
            print(f"{case.name:14}" + "  ".join(f"{name} {value:.1f} ms" for name, value in found.items()), end="  ")
            limits = {"ours": case.max_ratio, "packed": case.max_packed_ratio, "decoding": None}
            ratios = {name: found[name] / found["reference"] for name in limits}
            print("of the reference: " + ", ".join(_describe(name, ratios[name], limits[name]) for name in limits))
            stages = {**profile_stages(samples), "hand-over": time_hand_over(samples)}
            print(f"{'':14}" + ", ".join(f"{stage} {value:.2f}" for stage, value in stages.items()), flush=True)
            beyond += [
                f"{case.name}: the ratio of {name}, {ratios[name]:.4f}, is above {limit:.2f}."
                for name, limit in limits.items()
                if limit is not None and not ratios[name] <= limit
            ]
    for sentence in beyond:
        print(sentence, file=sys.stderr)
    return 1 if beyond else 0


def _describe(name: str, ratio: float, limit: float | None) -> str:
    return f"{name} {ratio:.2f}" + ("" if limit is None else f" (at most {limit:.2f})")


if __name__ == "__main__":
    sys.exit(main())
