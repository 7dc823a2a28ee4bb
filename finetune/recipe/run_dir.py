"""The run folder: what a run writes, and what a later launch resumes from."""

from __future__ import annotations

import copy
import errno
import hashlib
import json
import os
import shutil
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from finetune.utils.errors import FinetuneError, ProcessError, first_line
from finetune.utils.files import move_into_place, remove, sync, write_fault, write_file
from finetune.utils.paths import is_file, is_folder, is_link, list_folder, make_folder, path_exists, read_text

RECIPE_FILE = "recipe.yaml"
ENVIRONMENT_FILE = "environment.json"
METRICS_FILE = "metrics.csv"
EVALUATION_FILE = "evaluation.json"
REPORT_FILE = "report.html"
_CHOOSE_ANOTHER = "Choose another folder with output=DIR or name=NAME"
_MAX_PATH_BYTES = 3900  # Linux allows 4096, and the names of files in the folder need some of them
_CACHED_BY_NFS_S = 15.0  # NFS caches the content of a folder for up to this long
ADAPTER_FOLDER = "adapter"  # next to the merged weights of a run with train: lora; peft loads it
# Dotted keys that may change when a run is resumed. A run that a bad sample stopped may go on with
# data.on_bad_sample: skip, since it has skipped none so far.
RESUME_MUTABLE = (
    "run.steps",
    "run.log_every_steps",
    "run.evaluate_every_steps",
    "run.save_every_steps",
    "run.trackers",
    "data.workers",
    "data.prefetch",
    "data.pin_memory",
    "data.on_bad_sample",
    "evaluation.retention",
)
# Keys that name files and folders. They may change too: the content is compared instead.
PATH_KEYS = ("name", "output", "model.checkpoint")
# The same for an entry of ``data.train`` and ``data.val``.
PATH_KEYS_OF_DATA = (
    "root",
    "image_root",
    "depth_root",
    "image_dir",
    "depth_dir",
    "list",
    "associations",
    "labeled",
    "mask",
    "sky_mask",
    "split_file",
    "intrinsics",
)
# Keys that recipes of earlier versions did not have -> what they meant. Such a value is no part of the digest of a
# resume point, so that runs of those versions go on.
LATER_KEYS: Mapping[tuple[str, str], object] = {
    ("model", "activation"): "sigmoid",
    ("data", "camera"): {"mode": "none", "focal_px": "auto"},
    ("data", "decode"): "full",
    ("augment", "zoom"): [1.0, 1.0],
    ("augment", "strong"): {"color": 0.0, "blur": 0.0, "cutmix": 0.0},
}
# The same for an entry of ``data.train`` and ``data.val``.
LATER_KEYS_OF_DATA: Mapping[str, object] = {
    "depth_key": None,
    "loss": None,
    "z_near_m": None,
    "z_far_m": None,
    "z_buffer_range": None,
    "z_buffer_per_unit": None,
}
# Keys of ``environment.json`` that must not change -> the keys of the recipe they come from.
RESUME_FIXED = {"base_sha256": "model.checkpoint", "total_batch": "run.batch_size x run.accumulate x processes"}


def _require_links_lead(paths: Iterable[Path], fix: str) -> None:
    """
    Raises:
        FinetuneError: one of the paths is a link that leads nowhere.
    """
    for path in paths:
        if is_link(path) and not path_exists(path):
            raise FinetuneError(f"{path} is a link to a folder that is missing. {fix}.")


def _is_that_file(path: Path, descriptor: int) -> bool:
    """Whether the open file is still the one at ``path``."""
    try:
        return os.path.samestat(path.lstat(), os.fstat(descriptor))
    except OSError:
        return False


class RunFolder:
    """The folder ``<output>/<name>`` of a run: the paths in it, its lock, its files and its resume points."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock_file: int | None = None  # its descriptor, while this process has the lock
        self._undeletable: set[Path] = set()  # resume points that cannot be deleted, and were reported

    @property
    def best(self) -> Path:
        """The weights with the best evaluation."""
        return self.path / "best" / "model.safetensors"

    @property
    def last(self) -> Path:
        """The weights of the last step."""
        return self.path / "last" / "model.safetensors"

    @property
    def recipe(self) -> Path:
        """The recipe as it ran."""
        return self.path / RECIPE_FILE

    @property
    def environment(self) -> Path:
        """The software, hardware and data of the run."""
        return self.path / ENVIRONMENT_FILE

    @property
    def tensorboard(self) -> Path:
        """The folder of TensorBoard's event files."""
        return self.path / "tensorboard"

    @property
    def checkpoints(self) -> Path:
        """The folder of resume points."""
        return self.path / "checkpoints"

    def require_there(self) -> None:
        """
        Raises:
            ProcessError: the folder was deleted or moved while the run wrote to it.
        """
        if not is_folder(self.path):
            raise ProcessError(
                f"{self.path} was deleted or moved while the run wrote to it. If it was moved, move it back and go on "
                "with --resume."
            )

    def has_files(self) -> bool:
        """Whether the folder contains anything but files whose writing was cut off."""
        return path_exists(self.path) and any(not path.name.endswith(".writing") for path in self.path.iterdir())

    def require_free(self, *, resume: bool, overwrite: bool) -> None:
        """
        Raises:
            FinetuneError: the folder contains a run and neither flag says what to do with it, or it has other files.
        """
        if path_exists(self.path) and not is_folder(self.path):
            raise FinetuneError(f"{self.path} is a file. {_CHOOSE_ANOTHER}.")
        _require_links_lead((self.path, *self.path.parents), _CHOOSE_ANOTHER)
        parent = next(parent for parent in (self.path, *self.path.absolute().parents) if path_exists(parent))
        if not is_folder(parent):
            raise FinetuneError(f"{parent} is a file, so no folder can be made in it. {_CHOOSE_ANOTHER}.")
        if len(os.fsencode(self.path.absolute())) > _MAX_PATH_BYTES:
            raise write_fault(self.path, os.strerror(errno.ENAMETOOLONG), _CHOOSE_ANOTHER)
        if not os.access(parent, os.W_OK):
            raise write_fault(parent, os.strerror(errno.EACCES), _CHOOSE_ANOTHER)
        if not self.has_files():
            # Also with --resume: a run that was killed before it wrote anything starts again.
            return
        if not path_exists(self.recipe):
            # A typing error in output= must not delete somebody's photographs.
            raise FinetuneError(f"{self.path} contains files but no run. {_CHOOSE_ANOTHER}.")
        for inside in (self.tensorboard, self.checkpoints, self.best.parent, self.last.parent):
            if resume:  # resume points on a disk that is not there would be taken for none, and the run begin anew
                _require_links_lead((inside,), "Restore the folder")
            if resume and path_exists(inside) and not is_folder(inside):
                raise FinetuneError(f"{inside} must be a folder. Delete what is there, or move it away.")
        if not resume and not overwrite:
            raise FinetuneError(
                f"{self.path} contains a run. Go on with --resume, start another with name=..., "
                "or replace it with --overwrite."
            )

    def claim(self) -> str | None:
        """
        Keep other launches out until ``release``, or until this process ends in any way.

        Returns:
            None; or a sentence that says why it cannot be locked: another process has it, or nothing can be written.
        """
        try:
            import fcntl
        except ImportError:  # not on Windows
            return None
        # Next to the folder, because --overwrite empties it. lockf locks for the process, not for the open file: a
        # loader's workers inherit open files, and live on for seconds after a run was killed.
        path = self._next_to("lock")
        while True:
            try:
                make_folder(path.parent)
                # Do not empty the file or follow a link: it may lead to somebody's file.
                file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, 0o666)
            except OSError as error:
                if is_link(path):
                    return f"{path} is a link, and a lock cannot be one. Delete it, or choose another name=..."
                return str(write_fault(path, str(error.strerror), _CHOOSE_ANOTHER))
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError):
                os.close(file)
                return (
                    f"{self.path}: another process is running in it. Wait until it ends or stop it, or start this one "
                    "with name=..."
                )
            except OSError:
                # This file system has no locks.
                os.close(file)
                return None
            # The process that had the lock may have removed the file meanwhile; then this lock keeps nobody out.
            if _is_that_file(path, file):
                self._lock_file = file
                return None
            os.close(file)

    def release(self) -> None:
        """Let other launches in again."""
        if self._lock_file is not None:
            # Remove the file before the lock ends, while no other process can have it.
            with suppress(OSError):
                self._next_to("lock").unlink()
            os.close(self._lock_file)
            self._lock_file = None

    def leave_word(self, word: str) -> None:
        """Write a word next to the folder, so that other processes can tell that they see the same folder."""
        remove(self._next_to("word"))  # it may be a link, and writing would replace the file it leads to
        write_file(self._next_to("word"), word)

    def finds_word(self, word: str) -> bool:
        """Whether the word is there; a network file system may show it some seconds late."""
        until = time.monotonic() + _CACHED_BY_NFS_S
        while True:
            with suppress(OSError, UnicodeDecodeError):
                if read_text(self._next_to("word")) == word:
                    return True
            if time.monotonic() > until:
                return False
            time.sleep(0.2)

    def remove_word(self) -> None:
        """Remove the word."""
        with suppress(OSError):
            self._next_to("word").unlink()

    def _next_to(self, ending: str) -> Path:
        return self.path.with_name(f".{self.path.name}.{ending}")

    def prepare(self, recipe: str, *, overwrite: bool) -> None:
        """
        Make the folder ready for a launch, after ``require_free``.

        Args:
            recipe: as it runs; written first, because a folder with a recipe is what counts as a run folder.
            overwrite: empty the folder first.

        Raises:
            FinetuneError: it cannot be written.
        """
        try:
            if overwrite and path_exists(self.path):
                # Empty it instead of removing it: it may be a link to a disk with room. Remove the recipe last: if this
                # launch is killed meanwhile, it is still a run folder, and --overwrite works again.
                for inside in sorted(self.path.iterdir(), key=lambda path: path.name == RECIPE_FILE):
                    remove(inside)
            make_folder(self.path)
            self.write_text(RECIPE_FILE, recipe)
        except OSError as error:
            raise write_fault(self.path, str(error.strerror), _CHOOSE_ANOTHER) from error

    def write_text(self, name: str, text: str) -> None:
        """Write a file of the folder, whole or not at all."""
        write_file(self.path / name, text)

    def write_json(self, name: str, content: object) -> None:
        """Write a JSON file of the folder, whole or not at all."""
        self.write_text(name, json.dumps(content, indent=2) + "\n")

    def checkpoint(self, step: int) -> Path:
        """The resume point of ``step``."""
        return self.checkpoints / f"step_{step:08d}"

    def writing(self, step: int) -> Path:
        """Where a resume point is written before ``finish_writing`` gives it its name."""
        return self.checkpoints / f".writing_{step:08d}"

    def start_writing(self, step: int) -> None:
        """Make an empty folder to write a resume point into, and remove unfinished ones that a kill left."""
        self.drop_unfinished()
        self.writing(step).mkdir(parents=True)

    def drop_unfinished(self) -> None:
        """Remove resume points that were begun and never finished."""
        for unfinished in self.checkpoints.glob(".writing_*"):
            shutil.rmtree(unfinished, ignore_errors=True)

    def finish_writing(self, step: int, keep: int) -> list[str]:
        """
        Give the resume point its name, so that it exists whole or not at all; keep only the newest ``keep``.

        Returns:
            Sentences about older ones that cannot be deleted; the new one is complete all the same.
        """
        move_into_place(self.writing(step), self.checkpoint(step))
        notes = []
        for old in self.newest_first()[keep:]:
            try:
                shutil.rmtree(old)
            except OSError as error:
                if old in self._undeletable:
                    continue
                self._undeletable.add(old)
                notes.append(f"{old}: an old resume point cannot be deleted ({first_line(error)}); the run goes on")
        return notes

    def sync_metrics(self) -> None:
        """Wait until the rows so far are on the disk: a resume point needs those of the steps before it."""
        if path_exists(self.path / METRICS_FILE):
            sync(self.path / METRICS_FILE)

    def newest_first(self) -> list[Path]:
        """
        The resume points, the newest first.

        Raises:
            FinetuneError: the folder is there and cannot be listed, so nobody knows whether it holds some.
        """
        try:
            found = list_folder(self.checkpoints)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise FinetuneError(
                f"{self.checkpoints}: its resume points cannot be listed ({error.strerror}). Make the folder readable "
                "for this user, or start another run with name=..."
            ) from error
        return [path for path in reversed(found) if path.name.startswith("step_")]


def digest(content: object) -> str:
    """SHA-256 of plain values, as hexadecimal digits."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def lasting_digest(recipe: Mapping[str, object]) -> str:
    """SHA-256 of the part of a recipe that must not change when a run is resumed, wherever its files are."""
    fixed = _fixed_part(recipe)
    for (section, name), default in LATER_KEYS.items():
        inside = fixed.get(section)
        if isinstance(inside, dict) and inside.get(name) == default:
            del inside[name]
    for entry in _entries(fixed):
        for name, default in LATER_KEYS_OF_DATA.items():
            if name in entry and entry[name] == default:
                del entry[name]
    return digest(fixed)


def _entries(recipe: Mapping[str, object]) -> Iterator[dict[str, object]]:
    """The entries of ``data.train`` and ``data.val``."""
    data = recipe.get("data")
    for part in ("train", "val"):
        entries = data.get(part) if isinstance(data, dict) else None
        yield from (entry for entry in (entries if isinstance(entries, list) else ()) if isinstance(entry, dict))


def _fixed_part(recipe: Mapping[str, object]) -> dict[str, object]:
    """A recipe without the keys that may change, and without paths."""
    fixed = {name: copy.deepcopy(value) for name, value in recipe.items()}
    for key in (*RESUME_MUTABLE, *PATH_KEYS):
        *section, name = key.split(".")
        inside = fixed.get(section[0]) if section else fixed
        if isinstance(inside, dict):
            inside.pop(name, None)
    for entry in _entries(fixed):
        for name in PATH_KEYS_OF_DATA:
            # The key itself stays, because whether it is given says how the data are laid out.
            if isinstance(entry.get(name), str):
                entry[name] = "somewhere"
    return fixed


def differing_keys(old: object, new: object, prefix: str = "") -> list[str]:
    """The dotted keys in which two mappings of plain values differ."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        return [
            key
            for name in sorted({*old, *new})
            for key in differing_keys(old.get(name), new.get(name), f"{prefix}.{name}" if prefix else str(name))
        ]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return differing_keys(_by_index(old), _by_index(new), prefix)
    return [] if old == new else [prefix]


def _by_index(values: list[object]) -> dict[str, object]:
    return {str(i): value for i, value in enumerate(values)}


def _has_key(content: object, key: str) -> bool:
    """Whether plain values have a dotted key."""
    inside = content
    for name in key.split("."):
        if isinstance(inside, list):
            inside = _by_index(inside)
        if not isinstance(inside, Mapping) or name not in inside:
            return False
        inside = inside[name]
    return True


def require_same_run(
    folder: RunFolder,
    recipe: Mapping[str, object],
    record: Mapping[str, Any],
    written: Collection[str] | None = None,
) -> None:
    """
    Args:
        folder: of the run to resume.
        recipe: of this launch, as plain values.
        record: what ``environment.json`` would say of this launch.
        written: dotted keys that the recipe of this launch writes; None: all of them. The others have their defaults,
            and are not compared with a run of an older version that did not have them.

    Raises:
        FinetuneError: the run was made by another recipe, on other data or weights, or with another total batch. Files
            may be in another place.
    """
    try:
        _require_same(folder, recipe, record, written)
    except RecursionError as error:
        raise _damaged(folder.environment) from error


def _require_same(
    folder: RunFolder, recipe: Mapping[str, object], record: Mapping[str, Any], written: Collection[str] | None
) -> None:
    ran = _fixed_part(_read(folder.recipe))
    differing = [
        key
        for key in differing_keys(ran, _fixed_part(recipe))
        if written is None or key in written or _has_key(ran, key)
    ]
    if differing:
        raise FinetuneError(
            f"{folder.recipe}: the run was made with another {', '.join(differing)}. Resume with the same values "
            f"(only {', '.join(RESUME_MUTABLE)} may differ, and the paths of data, base and run folder), or start "
            "another run with name=..."
        )
    if not is_file(folder.environment):
        return
    old = _read(folder.environment)
    differing = [key for name, key in RESUME_FIXED.items() if old.get(name) != record[name]]
    frames = old.get("frames")
    for key, now in record["frames"].items():
        then = frames.get(key) if isinstance(frames, dict) else None
        # The record of an older version has no digest of the content.
        seen = "content_sha256" if isinstance(then, dict) and "content_sha256" in then else "sha256"
        if not isinstance(then, dict) or (then.get("count"), then.get(seen)) != (now["count"], now[seen]):
            count = then.get("count") if isinstance(then, dict) else "unknown"
            differing.append(f"{key} ({count} frames then, {now['count']} now, of other names or content)")
    if differing:
        raise FinetuneError(
            f"{folder.environment}: since the run began, {', '.join(differing)} changed, so its samples would differ. "
            "Restore the old files and number of processes, or start another run with name=..."
        )


def _read(path: Path) -> dict[str, object]:
    """
    Raises:
        FinetuneError: the file does not contain a mapping.
    """
    try:
        text = read_text(path)
        content = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except OSError as error:
        raise FinetuneError(f"{path}: {error.strerror}. Start another run with name=...") from error
    # An impossible date and a number of too many digits raise a plain ValueError.
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise _damaged(path) from error
    if not isinstance(content, dict):
        raise FinetuneError(f"{path} is empty or damaged, so the run cannot go on. Start another with name=...")
    return content


def _damaged(path: Path) -> FinetuneError:
    return FinetuneError(f"{path} is damaged, so the run cannot go on. Start another with name=...")
