"""``finetune pack RECIPE --output DIR [key=value ...]``: the frames of a recipe in a few large files."""

from __future__ import annotations

import argparse
import signal
from collections.abc import Sequence
from typing import TYPE_CHECKING

from finetune.commands.arguments import add_recipe_argument, positive_count
from finetune.commands.runner import LOGGER, CommandParser, run_command
from finetune.utils.paths import expand_path, is_folder
from finetune.utils.text import count_noun

if TYPE_CHECKING:
    from finetune.prepare.packing.run_pack import PackedEntry
    from finetune.recipe.schema import Recipe

_MAX_QUALITY = 100
_MB = 1e6
_NAMED_FAULTS = 10


def make_parser() -> CommandParser:
    """The arguments of ``finetune pack``."""
    parser = CommandParser(
        prog="finetune pack",
        description="Write each frame of a recipe's data once, as tar shards with an index, for slow disks, object "
        "stores and millions of files. The samples of a run stay the same, in the same order. Frames of data.train "
        "become as small as the network sees them; those of data.val stay as they are. A call that was stopped goes "
        "on when it is made again.",
        example="finetune pack recipes/room_tiny.yaml --output packed/room",
    )
    add_recipe_argument(parser)
    parser.add_argument("--output", type=expand_path, required=True, metavar="DIR", help="the folder to make")
    parser.add_argument(
        "--size",
        choices=["working", "full"],
        default="working",
        help="of frames of data.train: as large as the network sees them at most, or as they are; default: working",
    )
    parser.add_argument(
        "--images",
        choices=["jpeg", "png"],
        default="jpeg",
        help="images of data.train: JPEG, or PNG without loss, which takes longer to read; default: jpeg. The JPEG "
        "file of an image that keeps its size is kept",
    )
    parser.add_argument(
        "--quality", type=positive_count, default=90, metavar="N", help=f"of JPEG, up to {_MAX_QUALITY}; default: 90"
    )
    parser.add_argument(
        "--workers", type=positive_count, metavar="N", help="number of processes; default: one a core, at most 8"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a folder that was packed before")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the call and pack; for the exit status see ``runner.run_command``."""
    parser = make_parser()
    arguments = parser.parse_intermixed_args(argv)
    if arguments.quality > _MAX_QUALITY:
        parser.error(f"argument --quality: {arguments.quality} is above {_MAX_QUALITY}")
    return run_command(
        lambda: _pack_or_say_what_is_kept(arguments),
        of_memory="Call with --workers 1, or close what else holds memory.",
    )


def _pack_or_say_what_is_kept(arguments: argparse.Namespace) -> int:
    """
    Raises:
        Interrupted: by a signal; says whether a later call goes on.
        FinetuneError: see ``pack_recipe``.
    """
    from finetune.prepare.unfinished_folder import PACKING, unfinished_folder
    from finetune.utils.errors import FinetuneError
    from finetune.utils.signals import Interrupted

    try:
        return _pack(arguments)
    except KeyboardInterrupt as error:
        number = error.number if isinstance(error, Interrupted) else signal.SIGINT
        kept = "The shards that are whole are kept: call again, with the same words, to go on."
        if not is_folder(unfinished_folder(arguments.output, PACKING)):
            kept = "No shard was whole yet, so nothing is kept: call again to begin."
        raise Interrupted(number, kept) from None
    except FinetuneError:
        if is_folder(unfinished_folder(arguments.output, PACKING)):
            LOGGER.info("Shards that are whole are kept in %s.", unfinished_folder(arguments.output, PACKING))
        raise


def _pack(arguments: argparse.Namespace) -> int:
    from finetune.prepare.packing.pack_plan import PackChoice
    from finetune.prepare.packing.run_pack import PackOptions, pack_recipe
    from finetune.prepare.workers import default_workers
    from finetune.recipe.load import load_recipe
    from finetune.utils.signals import Interrupts

    recipe = load_recipe(arguments.recipe, arguments.overrides)
    options = PackOptions(
        output=arguments.output,
        choice=PackChoice(size=arguments.size, images=arguments.images, quality=arguments.quality),
        workers=arguments.workers or default_workers(),
        overwrite=arguments.overwrite,
    )
    with Interrupts():
        packed = pack_recipe(recipe, options)
    for entry in packed:
        for line in _describe_entry(entry):
            print(line)
    _print_recipe_lines(recipe, packed, arguments)
    return 0


def _describe_entry(packed: PackedEntry) -> list[str]:
    """What became of an entry, and of frames that could not be read."""
    size = f"{packed.packed_bytes / _MB:,.1f} MB in {count_noun(packed.shards, 'shard')}"
    if packed.files_bytes:
        share = packed.packed_bytes / packed.files_bytes
        size = f"{packed.files_bytes / _MB:,.1f} MB of files -> {size} ({share:.2f} of it)"
    kept = "as they were read" if not packed.reduced else f"{packed.reduced} of them smaller than they were"
    if packed.lossy:
        kept += f"; images differ by {packed.levels_off:.2f} of 255 in the mean"
    lines = [f"{' = '.join(packed.entry.keys)}: {count_noun(packed.frames, 'frame')}, {size}; {kept}"]
    lines += [f"  cannot be read, and is skipped by a run: {fault}" for fault in packed.faults[:_NAMED_FAULTS]]
    if len(packed.faults) > _NAMED_FAULTS:
        lines.append(f"  and {len(packed.faults) - _NAMED_FAULTS} more")
    return lines


def _print_recipe_lines(recipe: Recipe, packed: Sequence[PackedEntry], arguments: argparse.Namespace) -> None:
    """The lines of a recipe that read what was packed, and the commands."""
    from finetune.prepare.packing.packed_recipe import packed_entries
    from finetune.recipe.yaml_source import yaml_text
    from finetune.utils.paths import real_path

    entries = packed_entries(recipe, [found.entry for found in packed], real_path(arguments.output))
    print("the lines of a recipe that read them:")
    print("".join(f"  {line}\n" for line in yaml_text({"data": dict(entries)}).splitlines()), end="")
    print(f"train:       finetune train {arguments.output}/recipe.yaml")
