"""``finetune label TEACHER PATH... --output DIR``: images to pseudo-labels, for a student to train on."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from finetune.commands.arguments import (
    add_camera_arguments,
    add_device_argument,
    add_input_arguments,
    add_model_argument,
    add_precision_argument,
    assumes_training_camera,
    camera_options,
    configure_network,
    line_printer,
    load_named_predictor,
    positive_count,
    require_one_camera,
)
from finetune.commands.runner import CommandParser, configure_threading, import_without_gc, run_command
from finetune.utils.errors import FinetuneError, ResultError
from finetune.utils.files import explain_write_errors
from finetune.utils.kinds import IN_WORDS
from finetune.utils.number_arguments import number, shard

if TYPE_CHECKING:
    from finetune.inference.inputs import Input
    from finetune.inference.pseudo_labels.label_folder import LabelFolder
    from finetune.inference.pseudo_labels.run_labels import LabelCounts, NamedInput
    from finetune.inference.pseudo_labels.teacher import Anchor, Teacher
    from finetune.recipe.schema import Recipe
    from finetune.training.shared_inputs import SharingProcess


class _LabelParser(CommandParser):
    """Takes the two words of ``--anchor metric MODEL`` as one value, so that PATHs may follow them."""

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """As ``argparse.ArgumentParser.parse_known_args``."""
        words = list(sys.argv[1:] if args is None else args)
        for i in range(len(words) - 2, 0, -1):
            if words[i - 1 : i + 1] == ["--anchor", "metric"] and not words[i + 1].startswith("--"):
                words[i : i + 2] = [f"metric {words[i + 1]}"]
        return super().parse_known_args(words, namespace)


def make_parser() -> CommandParser:
    """The arguments of ``finetune label``."""
    parser = _LabelParser(
        prog="finetune label",
        description="Images to pseudo-labels of a teacher: labels/<name>.png, 16 bits with a unit of its own, inverse "
        "depth of a relative teacher, meters of a metric one or with --anchor; confidence/<name>.png, how much the "
        "teacher's prediction for the mirrored image disagrees; labels.csv, a line for each image; labels.json, "
        "written last. A call that was killed goes on where it stopped.",
        example="finetune label data/tiny_relative.safetensors data/room/train.txt --output pseudo",
    )
    add_model_argument(parser, metavar="TEACHER")
    add_input_arguments(parser)
    parser.add_argument("--overwrite", action="store_true", help="make a folder of labels again, with other options")
    add_device_argument(parser)
    parser.add_argument(
        "--shard",
        type=shard,
        metavar="I/N",
        default=(0, 1),
        help="do part I of N, I from 0 to N-1: for arrays of jobs, each with the same PATHs; accelerate launch "
        "finetune/label.py and torchrun share the inputs by themselves",
    )
    parser.add_argument(
        "--every", type=positive_count, default=1, metavar="N", help="label every N-th frame of a video; default: 1"
    )
    add_precision_argument(parser, default="auto")
    add_camera_arguments(parser)
    _add_anchoring_arguments(parser)
    parser.set_defaults(compile=False)
    return parser


def _add_anchoring_arguments(parser: CommandParser) -> None:
    group = parser.add_argument_group(
        "anchoring", "bring the labels to meters, by a scale and a shift in inverse depth"
    )
    group.add_argument(
        "--anchor",
        type=_anchor,
        default=("none", ""),
        metavar="none|sparse|metric MODEL",
        help="none, the default: labels are what TEACHER predicts; sparse: to what is measured in each image, with "
        "--recipe, then by a smooth field of scales; metric MODEL: to what a metric model predicts for it; an image "
        "whose points or pixels contradict TEACHER is refused",
    )
    group.add_argument(
        "--recipe",
        metavar="FILE",
        help="for --anchor sparse: the images are found among the frames of its data.train, whose depth counts",
    )
    share = number("a share between 0 and 1, such as 0.1", lambda found: 0 < found < 1)
    group.add_argument(
        "--agree-within",
        type=share,
        metavar="SHARE",
        help="up to which share near measured points may disagree about the scale, and pixels of the metric model with "
        "the label; default: 0.1",
    )
    group.add_argument(
        "--min-inliers",
        type=share,
        metavar="SHARE",
        help="an image is refused where a smaller share of the points or pixels agrees; default: 0.5",
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the call and label; for the exit status see ``runner.run_command``."""
    parser = make_parser()
    arguments = parser.parse_args(argv)
    require_one_camera(parser, arguments)
    if arguments.overwrite and arguments.shard[1] > 1:
        parser.error("--overwrite would remove what other shards do: remove the folder, and leave it out")
    _require_anchoring(parser, arguments)
    return run_command(
        lambda: _label(arguments),
        "Images that are done stay; call again for the others.",
        of_memory="Call with --device cpu, or close what else holds memory.",
    )


def _require_anchoring(parser: CommandParser, arguments: argparse.Namespace) -> None:
    """End with a usage error where the options of anchoring contradict each other."""
    kind, _ = arguments.anchor
    if kind == "sparse" and not arguments.recipe:
        parser.error("--anchor sparse needs the measured depth: name the recipe whose data.train has it with --recipe")
    if kind != "sparse" and arguments.recipe:
        parser.error("--recipe says where measured depth is: add --anchor sparse, or leave it out")
    given = [name for name in ("agree_within", "min_inliers") if getattr(arguments, name)]
    if kind == "none" and given:
        parser.error(f"--{given[0].replace('_', '-')} is for anchoring: add --anchor sparse or --anchor metric MODEL")


def _label(arguments: argparse.Namespace) -> None:
    from finetune.inference.inputs import find_files
    from finetune.inference.pseudo_labels.label_folder import require_output
    from finetune.inference.pseudo_labels.names import name_inputs

    found = find_files(arguments.paths, arguments.output)
    names = name_inputs(found, arguments.output)
    with explain_write_errors(arguments.output):
        require_output(arguments.output)
    recipe = None
    if arguments.recipe:
        from finetune.recipe.load import load_recipe

        recipe = load_recipe(arguments.recipe)
    configure_threading()
    # Anchoring multiplies matrices, and another number of threads may add in another order.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # Only now the imports that take seconds: a wrong call has been refused.
    with import_without_gc():
        from finetune.inference.pseudo_labels.run_labels import NamedInput
        from finetune.training.shared_inputs import join_launch

    inputs = [NamedInput(given=given, name=name) for given, name in zip(found, names, strict=True)]
    with join_launch("call again") as process:
        _label_share(arguments, inputs, process, recipe)


def _label_share(
    arguments: argparse.Namespace, all_inputs: Sequence[NamedInput], process: SharingProcess, recipe: Recipe | None
) -> None:
    """Label what this process of a launch has to do; the first one says what became of all."""
    from finetune.inference.pseudo_labels.run_labels import label_inputs

    part, parts = arguments.shard
    of_shard = all_inputs[part::parts]
    teacher = _load_teacher(arguments, process, [named.given for named in all_inputs], recipe)
    folder = _open_folder(arguments, all_inputs, teacher, process, recipe)
    counted = label_inputs(
        teacher,
        process.share(of_shard),
        folder,
        every=arguments.every,
        cores=process.cores,
        bar=process.rank == 0,
    )
    counts = process.gather(counted)
    if not counts:
        return  # the first process says it
    for other in counts[1:]:
        counts[0].add(other)
    _say_counts(arguments, teacher, counts[0])
    listed = [(named.name, named.path, named.given.is_video) for named in all_inputs]
    with explain_write_errors(arguments.output):
        summary = folder.finish(listed)
        left = folder.count_left(named.name for named in all_inputs) if summary is None else 0
        if summary is None and not left:  # another shard ended meanwhile
            summary = folder.finish(listed)
    _say_whole(arguments, summary, left, len(all_inputs))


def _load_teacher(
    arguments: argparse.Namespace, process: SharingProcess, inputs: Sequence[Input], recipe: Recipe | None
) -> Teacher:
    """
    Raises:
        FinetuneError: there is no such model or device, it predicts relative depth, or it needs a camera and an image
            has none; or the labels cannot be anchored to the model or the recipe that is named.
    """
    from finetune.inference.input_cameras import require_cameras
    from finetune.inference.pseudo_labels.teacher import Teacher

    predictor, digest = load_named_predictor(arguments, process.device(arguments.device))
    if predictor.kind == "relative_depth":
        raise FinetuneError(
            f"{arguments.model} predicts {IN_WORDS[predictor.kind]} without a unit, and labels are meters or inverse "
            "depth. Name another teacher, or fine-tune this one with model.head: metric."
        )
    predictor = configure_network(predictor, arguments)
    cameras, assume_training = camera_options(arguments), assumes_training_camera(arguments)
    require_cameras(predictor, inputs, cameras, assume_training=assume_training)
    teacher = Teacher(predictor=predictor, digest=digest, cameras=cameras, assume_training=assume_training)
    return replace(teacher, anchor=_make_anchor(arguments, teacher, inputs, recipe))


def _make_anchor(
    arguments: argparse.Namespace, teacher: Teacher, inputs: Sequence[Input], recipe: Recipe | None
) -> Anchor | None:
    """
    Raises:
        FinetuneError: see ``_load_teacher``.
    """
    from finetune.data.reader import set_image_levels
    from finetune.inference.anchoring import AnchoringOptions
    from finetune.inference.input_cameras import require_cameras
    from finetune.inference.pseudo_labels.anchors import MeasuredFrames, MetricAnchor, SparseAnchor, load_metric_model

    kind, model = arguments.anchor
    defaults = AnchoringOptions()
    options = AnchoringOptions(
        tolerance=arguments.agree_within or defaults.tolerance,
        min_inlier_share=arguments.min_inliers or defaults.min_inlier_share,
    )
    if recipe is not None:
        readers = [entry.source for entry in recipe.data.train]
        set_image_levels(readers, teacher.predictor.preprocessing.image_levels)
        frames = MeasuredFrames.index(readers, f"data.train of {arguments.recipe}")
        frames.require_some([given.path for given in inputs])
        return SparseAnchor(frames=frames, options=options)
    if kind == "none":
        return None
    predictor, digest = load_metric_model(model, teacher.predictor.device, teacher.predictor.precision)
    require_cameras(predictor, inputs, teacher.cameras, assume_training=teacher.assume_training)
    return MetricAnchor(model=replace(teacher, predictor=predictor, digest=digest), options=options)


def _open_folder(
    arguments: argparse.Namespace,
    inputs: Sequence[NamedInput],
    teacher: Teacher,
    process: SharingProcess,
    recipe: Recipe | None,
) -> LabelFolder:
    """
    Raises:
        FinetuneError: the folder holds something else, or cannot be made.
    """
    from finetune.inference.pseudo_labels.label_folder import LabelFolder

    folder = LabelFolder(folder=arguments.output, request=_describe_request(arguments, inputs, teacher, recipe))
    with explain_write_errors(arguments.output):
        if arguments.overwrite:
            if process.rank == 0:
                folder.discard()
            process.gather(None)  # the others begin when all is removed
        folder.open()
    return folder


def _describe_request(
    arguments: argparse.Namespace, inputs: Sequence[NamedInput], teacher: Teacher, recipe: Recipe | None
) -> Mapping[str, object]:
    """What decides the labels; ``labels.json`` begins with it."""
    from finetune.data.label_files import FORMAT
    from finetune.inference.pseudo_labels.anchors import MetricAnchor, SparseAnchor
    from finetune.inference.pseudo_labels.run_labels import CONFIDENCE_RULE, GUESS_RULE
    from finetune.recipe.validate import plain_values

    listed = json.dumps([[named.path, named.given.intrinsics] for named in inputs])
    predictor, cameras = teacher.predictor, teacher.cameras
    kind, name = arguments.anchor
    model: Mapping[str, str] | None = None
    anchoring: dict[str, object] = {}
    if isinstance(teacher.anchor, SparseAnchor | MetricAnchor):
        options = teacher.anchor.options
        anchoring = {"agree_within": options.tolerance, "min_inliers": options.min_inlier_share}
    if isinstance(teacher.anchor, MetricAnchor):
        model = {"model": name, "digest": teacher.anchor.model.digest}
    if recipe is not None:
        anchoring["measured"] = plain_values(recipe.data)["train"]
    return {
        "format": FORMAT,
        "kind": predictor.kind if teacher.anchor is None else "metric",
        "teacher": {"model": arguments.model, "digest": teacher.digest},
        "anchor": kind,
        "anchor_model": model,
        "confidence": CONFIDENCE_RULE + (GUESS_RULE if isinstance(teacher.anchor, SparseAnchor) else ""),
        "options": {
            "every": arguments.every,
            "precision": predictor.precision,
            "preprocessing": predictor.preprocessing.to_mapping(),
            "intrinsics": cameras.intrinsics,
            "intrinsics_size": cameras.size,
            "hfov_deg": cameras.hfov_deg,
            "assume_training_camera": teacher.assume_training,
            **anchoring,
        },
        "inputs": {"count": len(inputs), "digest": hashlib.sha256(listed.encode()).hexdigest()},
    }


def _say_counts(arguments: argparse.Namespace, teacher: Teacher, counts: LabelCounts) -> None:
    """What this call did."""
    part, parts = arguments.shard
    say = line_printer(teacher.predictor, arguments)
    for note in counts.notes:
        say(note)
    for reason in counts.reasons:
        say(f"refused: {reason}")
    if counts.refused > len(counts.reasons):
        say(f"refused: {counts.refused - len(counts.reasons)} more; labels.csv has a line for each")
    of = "" if parts == 1 else f"shard {part}/{parts}: "
    kept = f", {counts.skipped} were there already" if counts.skipped else ""
    say(f"{of}{counts.labeled} labeled, {counts.refused} refused{kept}")


def _say_whole(arguments: argparse.Namespace, summary: Mapping[str, object] | None, left: int, inputs: int) -> None:
    """What has been done by all calls.

    Raises:
        ResultError: not a single image has a label.
    """
    output = arguments.output
    if summary is None:
        print(f"{output}: {left} of {inputs} inputs are left; the shard that ends last completes the folder")
        return
    print(f"{output}: complete, {summary['labels']} labels, {summary['refused']} refused")
    if not summary["labels"]:
        raise ResultError(f"{output}: no image has a label. See why in {output / 'labels.csv'}.")


def _anchor(text: str) -> tuple[str, str]:
    kind, _, model = text.partition(" ")
    if kind == "metric" and not model:
        raise argparse.ArgumentTypeError("metric needs a metric model: write --anchor metric MODEL")
    if kind not in ("none", "sparse", "metric") or (model and kind != "metric"):
        raise argparse.ArgumentTypeError(f"{text} is not none, sparse, or metric MODEL")
    return kind, model
