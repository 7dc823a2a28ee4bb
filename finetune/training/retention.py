"""Measures what fine-tuning kept of its base on general data.

What the end of a run could not measure is refused before step 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from finetune.data.drawn_frames import describe_scenes, load_drawn_frames
from finetune.data.preprocessing import Preprocessing
from finetune.data.reader import Reader, list_sources, set_image_levels
from finetune.data.readers.files import read_image
from finetune.evaluation.evaluator import PredictFunction, PredictionRequest, predict_with_network
from finetune.evaluation.ordinal_pairs import AnnotatedImage, read_annotations
from finetune.evaluation.protocols import Protocol
from finetune.evaluation.retention import ALIGNED, GeneralScore, Retention, draw_pairs, name_frame
from finetune.inference.pair_scores import find_annotated_image
from finetune.inference.predictor import Predictor
from finetune.models.checkpoints.fill import whole_network
from finetune.models.checkpoints.load import Checkpoint, read_checkpoint
from finetune.recipe.schema import Recipe
from finetune.training.preflight import find_missing_files, find_real_place
from finetune.training.startup import Startup, read_base, readers_of
from finetune.utils.errors import CheckpointError, DataError, ListError
from finetune.utils.indices import evenly_spread
from finetune.utils.kinds import Kind
from finetune.utils.paths import expand_path
from finetune.utils.text import count_noun

KEY = "evaluation.retention"
_LOOKED_AT = 8  # frames of each entry in which pairs are looked for before step 1


class GeneralFrame(NamedTuple):
    """
    One image of general data.

    Attributes:
        image: (H, W, 3) uint8, RGB.
        named: its pairs.
        depth_m: (H, W), meters; None where people annotated the pairs.
        usable: (H, W), the pixels that count.
    """

    image: NDArray[np.uint8]
    named: AnnotatedImage
    depth_m: NDArray[np.float32] | None = None
    usable: NDArray[np.bool_] | None = None


@dataclass(frozen=True, kw_only=True)
class GeneralData:
    """
    Frames that the run does not train on.

    Attributes:
        name: what they are, in words.
        readers: of frames with depth; empty for annotated images.
        annotated: images with their pairs, and the file of each.
    """

    name: str
    readers: Sequence[Reader] = ()
    annotated: Sequence[tuple[AnnotatedImage, Path]] = ()

    def __len__(self) -> int:
        return len(self.annotated) + sum(map(len, self.readers))

    def frames(self, recipe: Recipe, preprocessing: Preprocessing) -> Iterator[GeneralFrame]:
        """
        Those that have a pair, as the network's ``preprocessing`` reads them.

        Raises:
            FileFault: one cannot be read.
        """
        for named, file in self.annotated:
            image = read_image(file, upright=True, levels=preprocessing.image_levels)
            named.require_inside(*image.shape[:2])
            yield GeneralFrame(image, named)
        set_image_levels(self.readers, preprocessing.image_levels)
        protocol = _make_protocol(recipe, "metric")
        numbered = enumerate((reader, i) for reader in self.readers for i in range(len(reader)))
        for number, (reader, i) in numbered:
            frame = _read_frame(reader, i, number, protocol)
            if frame.named.pairs:
                yield frame


class ComparedNetwork(NamedTuple):
    """What predicts, and which kind."""

    predict: PredictFunction
    kind: Kind


def require_retention(recipe: Recipe, checkpoint: Checkpoint | None = None) -> None:
    """
    Look, before step 1, whether retention can be measured at the end; nothing is drawn.

    Args:
        recipe: whose ``evaluation.retention`` is on, or not.
        checkpoint: of the recipe, if it is known by now.

    Raises:
        FinetuneError: annotations, an image or a frame cannot be read, no frame has a pair, a frame is trained on, or
            the base predicts no depth.
    """
    _list_own_data(recipe, checkpoint)


def _list_own_data(
    recipe: Recipe, checkpoint: Checkpoint | None
) -> tuple[list[Reader], list[tuple[AnnotatedImage, Path]]]:
    """The readers of ``evaluation.retention.entries``, and the annotated images; raises as ``require_retention``."""
    options = recipe.evaluation.retention
    if not options.is_on:
        return [], []
    if checkpoint is not None and not checkpoint.has_head:
        found = f"is an encoder without a decoder, and {KEY} asks what was kept of its depth"
        raise CheckpointError(checkpoint.source, found, f"Remove {KEY} ({recipe.where(KEY)})")
    readers = readers_of(options.entries)
    for reader in readers:
        find_missing_files(reader, may_skip=False)
    annotated = _list_annotated(recipe)
    drawn = [describe_scenes(options.drawn)] if options.drawn else []
    _require_untrained(recipe, [*drawn, *readers], [str(file) for _, file in annotated])
    if readers:
        protocol = _make_protocol(recipe, "metric")
        looked_at = ((reader, i) for reader in readers for i in evenly_spread(len(reader), _LOOKED_AT))
        if not any(_read_frame(reader, i, 0, protocol).named.pairs for reader, i in looked_at):
            raise _refuse_without_pairs(recipe, f"{KEY}.entries")
    return readers, annotated


def load_general_data(
    recipe: Recipe, checkpoint: Checkpoint | None, say: Callable[[str], None] = lambda sentence: None
) -> list[GeneralData]:
    """
    Args:
        recipe: its ``evaluation.retention`` names the data; nothing where that is off.
        checkpoint: the base.
        say: told what was drawn.

    Raises:
        FinetuneError: as of ``require_retention``; or the cache cannot be written.
    """
    readers, annotated = _list_own_data(recipe, checkpoint)
    options, found = recipe.evaluation.retention, []
    if options.drawn:
        drawn = load_drawn_frames(options.drawn, say)
        protocol = _make_protocol(recipe, "metric")
        if not any(_read_frame(drawn, i, i, protocol).named.pairs for i in range(len(drawn))):
            raise _refuse_without_pairs(recipe, f"{KEY}.drawn")
        found.append(GeneralData(name="drawn rooms and ground", readers=[drawn]))
    if options.annotations:
        found.append(GeneralData(name=options.annotations, annotated=annotated))
    if readers:
        found.append(GeneralData(name=f"{KEY}.entries", readers=readers))
    return found


def measure_kept(startup: Startup, best: Path, general: Sequence[GeneralData]) -> list[Retention]:
    """
    Args:
        startup: of the run, which gives base, size of input and colors.
        best: the weights of the run.
        general: of ``load_general_data``.

    Raises:
        FinetuneError: a frame cannot be read, or a prediction is not finite.
    """
    if not general:
        return []
    assert startup.checkpoint is not None, "a recipe without one is refused"
    device = startup.accelerator.device
    networks = [_compare(checkpoint, device) for checkpoint in (startup.checkpoint, read_checkpoint(str(best)))]
    return [_measure(startup.recipe, data, networks, startup.preprocessing) for data in general]


def measure_kept_by(
    recipe: Recipe, predictor: Predictor, say: Callable[[str], None] = lambda sentence: None
) -> list[Retention]:
    """
    As ``measure_kept``, of any model: the base is the recipe's checkpoint, and sees what the model sees of an image.

    Raises:
        FinetuneError: as of ``load_general_data`` and ``measure_kept``.
    """
    if not recipe.evaluation.retention.is_on:
        return []
    checkpoint = read_base(recipe)
    general = load_general_data(recipe, checkpoint, say)
    assert checkpoint is not None, "a recipe without one is refused"
    own = ComparedNetwork(predict_with_network(predictor.network, assume_training_camera=True), predictor.kind)
    networks = [_compare(checkpoint, predictor.device), own]
    return [_measure(recipe, data, networks, predictor.preprocessing) for data in general]


def _compare(checkpoint: Checkpoint, device: torch.device) -> ComparedNetwork:
    network = whole_network(checkpoint).to(device)
    # One focal length scales a whole prediction, which changes no order and is aligned away.
    return ComparedNetwork(predict_with_network(network, assume_training_camera=True), network.kind)


def _measure(
    recipe: Recipe, data: GeneralData, networks: Sequence[ComparedNetwork], preprocessing: Preprocessing
) -> Retention:
    scores = [GeneralScore() for _ in networks]
    protocols = [_make_protocol(recipe, network.kind) for network in networks]
    frames = tqdm(data.frames(recipe, preprocessing), total=len(data), unit="image", dynamic_ncols=True, disable=None)
    frames = iter(frames)
    while batch := list(islice(frames, recipe.run.batch_size)):
        requests = [
            PredictionRequest(
                image=torch.from_numpy(preprocessing(frame.image))[None],
                size=(frame.image.shape[0], frame.image.shape[1]),
            )
            for frame in batch
        ]
        for network, score, protocol in zip(networks, scores, protocols, strict=True):
            for frame, prediction in zip(batch, network.predict(requests), strict=True):
                score.add_pairs(frame.named, prediction, network.kind)
                if frame.depth_m is not None and frame.usable is not None:
                    score.add_depth(prediction, frame.depth_m, frame.usable, protocol)
    if not scores[0].pairs.pairs:
        raise _refuse_without_pairs(recipe, KEY)
    base, finetuned = scores
    limit_m = protocols[0].max_depth_m if data.readers else None
    return Retention(data=data.name, max_depth_m=limit_m, base=base, finetuned=finetuned)


def _make_protocol(recipe: Recipe, kind: Kind) -> Protocol:
    """Up to the farthest depth that the fine-tuned head can predict: what is beyond was given up, not forgotten."""
    max_depth_m = recipe.model.max_depth_m or recipe.depth_range_m[1]
    return Protocol(name=ALIGNED, min_depth_m=recipe.evaluation.min_depth_m, max_depth_m=max_depth_m, kind=kind)


def _read_frame(reader: Reader, index: int, number: int, protocol: Protocol) -> GeneralFrame:
    sample = reader[index]
    usable = protocol.usable(sample.depth_m, sample.valid, sample.source)
    named = name_frame(sample.source, draw_pairs(sample.depth_m, usable, number), KEY)
    return GeneralFrame(sample.image, named, sample.depth_m, usable)


def _list_annotated(recipe: Recipe) -> list[tuple[AnnotatedImage, Path]]:
    """
    Raises:
        FinetuneError: the annotations cannot be read, or an image is missing.
    """
    options = recipe.evaluation.retention
    if options.annotations is None:
        return []
    file = expand_path(options.annotations)
    root = expand_path(options.images) if options.images else file.parent
    return [(image, find_annotated_image(image, root)) for image in read_annotations(file)]


def _require_untrained(recipe: Recipe, readers: Sequence[Reader], images: Sequence[str]) -> None:
    """
    Raises:
        ListError: a frame is one of ``data.train``, so it says nothing about what was forgotten.
    """
    sources = [source for reader in readers for source in list_sources(reader)]
    held_out = {find_real_place(source): source for source in (*sources, *images)}
    for i, entry in enumerate(recipe.data.train):
        trained: Iterable[str] = list_sources(entry.source)
        if images:
            files = (entry.source.files(index) for index in range(len(entry.source)))
            trained = (*trained, *(pair[0] for pair in files if pair))
        shared = [found for source in trained if (found := held_out.get(find_real_place(source)))]
        if shared:
            raise ListError(
                recipe.where(KEY),
                f"{KEY} and data.train.{i} share {count_noun(len(shared), 'frame')}, {shared[0]} first",
                "Take what is shared out of one of them: what was trained on does not show what was forgotten",
            )


def _refuse_without_pairs(recipe: Recipe, key: str) -> DataError:
    protocol = _make_protocol(recipe, "metric")
    ends = f"{protocol.min_depth_m:g} and {protocol.max_depth_m:g} m"
    fix = f"Name other frames, in {KEY}.entries or {KEY}.annotations ({recipe.where(KEY)})"
    return DataError(key, f"no two points between {ends} differ enough in depth to ask which is nearer", fix)
