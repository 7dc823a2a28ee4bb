"""``finetune prepare KIND SOURCE... --output DIR``: from a recording to a folder of frames that train."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, cast

from finetune.commands.arguments import positive_count, positive_meters
from finetune.commands.runner import LOGGER, CommandParser, configure_threading, import_without_gc, run_command
from finetune.prepare.kinds import KINDS
from finetune.utils.errors import DataError, FileFault, FinetuneError
from finetune.utils.paths import expand_path, is_folder, real_path
from finetune.utils.text import did_you_mean, nearest

if TYPE_CHECKING:
    from finetune.prepare.recording import RecordingKind

# What does not change the frames, so that a later call may have it otherwise and still go on.
_NOT_OF_REQUEST = ("output", "workers", "overwrite", "no_check", "skip_bad", "checkpoint")


def usage() -> str:
    """What ``finetune prepare`` alone prints."""
    lines = [
        "usage: finetune prepare KIND SOURCE ... --output DIR",
        "",
        *(f"  {name:11}{text.purpose}" for name, text in KINDS.items()),
        "",
        "It writes images, depth as 16-bit PNG, train.txt, val.txt, recipe.yaml and preview.html into DIR.",
        "finetune prepare KIND --help shows the options and an example.",
    ]
    return "\n".join(lines)


def make_parser(kind: str, module: RecordingKind) -> CommandParser:
    """The arguments of a kind."""
    parser = CommandParser(
        prog=f"finetune prepare {kind}",
        description=f"From {KINDS[kind].purpose} to a folder that trains: images, depth as 16-bit PNG, intrinsics, "
        "lists for train and val, recipe.yaml, and preview.html to look at. A call that was stopped goes on.",
        example=KINDS[kind].example,
    )
    module.add_arguments(parser)
    group = parser.add_argument_group("all kinds")
    group.add_argument("--output", type=expand_path, required=True, metavar="DIR", help="the folder to make")
    group.add_argument("--overwrite", action="store_true", help="replace a folder that was prepared before")
    group.add_argument(
        "--every", type=positive_count, default=1, metavar="N", help="take every N-th frame of each recording"
    )
    group.add_argument(
        "--max-frames", type=positive_count, metavar="N", help="take at most N frames, spread over all of them"
    )
    group.add_argument("--min-depth", type=positive_meters, metavar="METERS", help="leave out nearer depth")
    group.add_argument("--max-depth", type=positive_meters, metavar="METERS", help="leave out farther depth")
    group.add_argument(
        "--checkpoint",
        metavar="MODEL",
        help="for recipe.yaml: a weights file or a hub id; default: the small checkpoint of this repository",
    )
    group.add_argument(
        "--workers", type=positive_count, metavar="N", help="number of processes; default: one a core, at most 8"
    )
    group.add_argument("--skip-bad", action="store_true", help="leave out frames that cannot be read, and name them")
    group.add_argument("--no-check", action="store_true", help="do not end by what finetune check says")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the call and prepare; exit status 1 if a run would be wasted, else see ``runner.run_command``."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help"):
        print(usage())
        return 0 if words else 2
    name, *rest = words
    if name not in KINDS:
        perhaps = did_you_mean(nearest(name, list(KINDS)))
        expected = f"expected one of {', '.join(KINDS)}"
        print(f"finetune stopped: {name!r} is not a kind of recording; {expected}.{perhaps}", file=sys.stderr)
        return 2
    module = cast("RecordingKind", import_module(f"finetune.prepare.kinds.{name}"))
    parser = make_parser(name, module)
    arguments = parser.parse_args(rest)
    near_m, far_m = arguments.min_depth, arguments.max_depth
    if near_m is not None and far_m is not None and near_m >= far_m:
        parser.error(f"--min-depth {near_m:g} is not below --max-depth {far_m:g}, so no depth is left")
    return run_command(
        lambda: _prepare_or_say_what_is_kept(name, module, arguments),
        of_memory="Call with --workers 1, or close what else holds memory.",
    )


def _prepare_or_say_what_is_kept(kind: str, module: RecordingKind, arguments: argparse.Namespace) -> int:
    """
    Raises:
        Interrupted: by a signal; says whether a later call goes on.
    """
    from finetune.prepare.unfinished_folder import PREPARING, unfinished_folder
    from finetune.utils.signals import Interrupted

    try:
        return _prepare(kind, module, arguments)
    except KeyboardInterrupt as error:
        number, saved = (error.number, error.saved) if isinstance(error, Interrupted) else (signal.SIGINT, "")
        kept = "The frames that are done are kept: call again, with the same words, to go on."
        if not is_folder(unfinished_folder(arguments.output, PREPARING)):
            kept = "No frame was done yet, so nothing is kept: call again to begin."
        raise Interrupted(number, saved or kept) from None


def _prepare(kind: str, module: RecordingKind, arguments: argparse.Namespace) -> int:
    from finetune.prepare.output_folder import require_output
    from finetune.prepare.run_prepare import PrepareOptions, prepare_frames
    from finetune.prepare.unfinished_folder import PREPARING, unfinished_folder
    from finetune.prepare.workers import default_workers
    from finetune.prepare.writer import DepthLimits
    from finetune.utils.signals import Interrupted, Interrupts

    require_output(arguments.output, overwrite=arguments.overwrite)
    _require_sources_outside(arguments)
    _require_checkpoint(arguments.checkpoint)
    with _options_named():
        source = module.open_source(arguments)
    for note in source.notes:
        print(note)
    options = PrepareOptions(
        output=arguments.output,
        request={"kind": kind, **_describe_request(arguments)},
        every=arguments.every,
        max_frames=arguments.max_frames,
        limits=DepthLimits(min_m=arguments.min_depth or 0.0, max_m=arguments.max_depth),
        workers=arguments.workers or default_workers(),
        overwrite=arguments.overwrite,
        skip_bad=arguments.skip_bad,
        checkpoint=arguments.checkpoint,
    )
    try:
        with Interrupts(), _options_named():
            prepared = prepare_frames(source, options)
    except FinetuneError as error:
        kept = unfinished_folder(arguments.output, PREPARING)
        if is_folder(kept):
            skip = "; with --skip-bad it leaves out what cannot be read" if isinstance(error, DataError) else ""
            LOGGER.info("The frames that are done are kept in %s: the same call goes on%s.", kept, skip)
        raise
    for line in prepared.sentences():
        print(line)
    recipe = f"{arguments.output}/recipe.yaml"
    try:
        status = 0 if arguments.no_check else _check(recipe)
    except KeyboardInterrupt:
        raise Interrupted(signal.SIGINT, f"{arguments.output} is complete: finetune check {recipe} goes on.") from None
    print(f"look at it:  {arguments.output}/preview.html")
    print(f"check:       finetune check {recipe}")
    print(f"train:       finetune train {recipe}")
    return status


@contextmanager
def _options_named() -> Iterator[None]:
    """Readers name keys of a recipe in their errors; a user of this command has options."""
    from finetune.prepare.depth_options import name_options

    try:
        yield
    except FileFault as error:
        raise name_options(error) from None


def _require_checkpoint(checkpoint: str | None) -> None:
    """
    Raises:
        RecipeError: the recipe would name a checkpoint that is missing.
    """
    from finetune.recipe.schema import require_checkpoint
    from finetune.utils.errors import RecipeError

    try:
        require_checkpoint(checkpoint)
    except RecipeError as error:
        raise RecipeError("--checkpoint", error.value, error.expected) from None


def _require_sources_outside(arguments: argparse.Namespace) -> None:
    """
    Raises:
        FileFault: a source is in the folder that will be replaced, and would be lost.
    """
    output = real_path(arguments.output)
    values = [value for key, value in vars(arguments).items() if key not in _NOT_OF_REQUEST]
    for path in (path for value in values for path in (value if isinstance(value, list) else [value])):
        if isinstance(path, Path) and real_path(path).is_relative_to(output):
            raise FileFault(path, f"is in {arguments.output}, which is made anew", "Name another folder as --output")


def _describe_request(arguments: argparse.Namespace) -> dict[str, object]:
    """What the user asked for, as JSON takes it."""
    return {
        key: _to_plain(value)
        for key, value in vars(arguments).items()
        if key not in _NOT_OF_REQUEST and value is not None and value is not False
    }


def _to_plain(value: object) -> object:
    if isinstance(value, list | tuple):
        return [_to_plain(part) for part in value]
    return str(real_path(value)) if isinstance(value, Path) else value


def _check(recipe: str) -> int:
    """Print what ``finetune check`` says; 1 where a run would be wasted."""
    configure_threading()
    # Only now the imports that take seconds: the frames are written.
    with import_without_gc():
        from finetune.recipe.load import load_recipe
        from finetune.reporting.check_report import format_check
        from finetune.training.recipe_check import check_recipe

    print(f"\nwhat finetune check {recipe} --no-step says:")
    checked = check_recipe(load_recipe(recipe, []), recipe, step=False)
    print(format_check(checked))
    print()
    return 1 if checked.stops else 0
