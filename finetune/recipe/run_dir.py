"""What a run leaves behind, and what it resumes from."""

from __future__ import annotations

import copy
import errno
import hashlib
import json
import os
import shutil
import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from finetune.utils.errors import FinetuneError, ProcessError, first_line
from finetune.utils.files import move_into_place, remove, sync, write_fault, write_file
from finetune.utils.paths import is_file, is_folder, is_link, path_exists

RECIPE_FILE = "recipe.yaml"
ENVIRONMENT_FILE = "environment.json"
METRICS_FILE = "metrics.csv"
EVALUATION_FILE = "evaluation.json"
REPORT_FILE = "report.html"
_CHOOSE_ANOTHER = "Choose another folder with output=DIR or name=NAME"
# Linux takes 4096; the longest file of a run needs some of them.
_MAX_PATH_BYTES = 3900
_SECONDS_TO_BE_SEEN = 15.0  # NFS keeps what it knows of a folder for up to so long
ADAPTER_FOLDER = "adapter"  # beside the merged weights of a run with train: lora, as peft loads it
# What may differ between a run and its resumption, as dotted keys.
# Skipping bad samples is what a run that one of them stopped needs to go on: none was skipped before it.
RESUME_MUTABLE = (
    "run.steps",
    "run.log_every_steps",
    "run.evaluate_every_steps",
    "run.save_every_steps",
    "data.workers",
    "data.on_bad_sample",
)
# Keys of a recipe that say where something lies. They may differ: what lies there is compared by its content.
PLACES = ("name", "output", "model.checkpoint")
# The same of an entry of ``data.train`` and ``data.val``.
PLACES_OF_DATA = (
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
# What must be as it was, in ``environment.json``, and what of the recipe it comes from.
RESUME_FIXED = {"base_sha256": "model.checkpoint", "total_batch": "run.batch_size x run.accumulate x processes"}


def _is_that_file(path: Path, descriptor: int) -> bool:
    """Whether an open file is the one of that name."""
    try:
        return os.path.samestat(path.lstat(), os.fstat(descriptor))
    except OSError:
        return False


class RunFolder:
    """``<output>/<name>``: every path in it, and files written whole or not at all."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._claim: int | None = None  # an open file
        self._kept_against_will: set[Path] = set()  # resume points that cannot be deleted

    @property
    def best(self) -> Path:
        """Weights of the best evaluation."""
        return self.path / "best" / "model.safetensors"

    @property
    def last(self) -> Path:
        """Weights of the last step."""
        return self.path / "last" / "model.safetensors"

    @property
    def recipe(self) -> Path:
        """The recipe as it ran."""
        return self.path / RECIPE_FILE

    @property
    def environment(self) -> Path:
        """Where and on what it ran."""
        return self.path / ENVIRONMENT_FILE

    @property
    def tensorboard(self) -> Path:
        """Event files."""
        return self.path / "tensorboard"

    @property
    def checkpoints(self) -> Path:
        """Resume points."""
        return self.path / "checkpoints"

    def require_there(self) -> None:
        """
        Raises:
            ProcessError: the folder was deleted, moved or replaced while the run wrote to it.
        """
        if not is_folder(self.path):
            raise ProcessError(
                f"{self.path} was deleted or moved while the run wrote to it. If it was moved, move it back and go on "
                "with --resume."
            )

    def holds_something(self) -> bool:
        """Whether anything is in the folder besides a file whose writing was cut off."""
        return path_exists(self.path) and any(not path.name.endswith(".writing") for path in self.path.iterdir())

    def require_free(self, *, resume: bool, overwrite: bool) -> None:
        """
        Raises:
            FinetuneError: the folder holds a run and neither flag says what to do with it, or it is no run folder.
        """
        if path_exists(self.path) and not is_folder(self.path):
            raise FinetuneError(f"{self.path} is a file. {_CHOOSE_ANOTHER}.")
        if is_link(self.path) and not path_exists(self.path):
            raise FinetuneError(f"{self.path} is a link to a folder that is missing. {_CHOOSE_ANOTHER}.")
        parent = next(parent for parent in (self.path, *self.path.absolute().parents) if path_exists(parent))
        if not is_folder(parent):
            raise FinetuneError(f"{parent} is a file, so no folder can be made in it. {_CHOOSE_ANOTHER}.")
        if len(os.fsencode(self.path.absolute())) > _MAX_PATH_BYTES:
            raise write_fault(self.path, os.strerror(errno.ENAMETOOLONG), _CHOOSE_ANOTHER)
        if not os.access(parent, os.W_OK):
            raise write_fault(parent, os.strerror(errno.EACCES), _CHOOSE_ANOTHER)
        if not self.holds_something():
            # Also with --resume: a run killed before it had written anything starts again.
            return
        if not path_exists(self.recipe):
            # A typing error in output= must not delete somebody's photographs.
            raise FinetuneError(f"{self.path} holds files but no run. {_CHOOSE_ANOTHER}.")
        for inside in (self.tensorboard, self.checkpoints, self.best.parent, self.last.parent):
            if resume and path_exists(inside) and not is_folder(inside):
                raise FinetuneError(f"{inside} is no folder, and the run needs one there. Delete it, or move it away.")
        if not resume and not overwrite:
            raise FinetuneError(
                f"{self.path} holds a run. Go on with --resume, start another with name=..., "
                "or replace it with --overwrite."
            )

    def claim(self) -> str | None:
        """
        Keep other launches out until ``release``, or until this process ends, however it does.

        Returns:
            None; or, where another process has it or nothing can be written there, a sentence that says so.
        """
        try:
            import fcntl
        except ImportError:  # not on Windows
            return None
        # Beside the folder, which --overwrite empties. Of a process, not of a file handle: the workers of a loader
        # inherit those, and outlive by seconds a run that was killed.
        beside = self._beside("lock")
        while True:
            try:
                beside.parent.mkdir(parents=True, exist_ok=True)
                # Neither emptied nor followed: a link may lead to somebody's file.
                file = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, 0o666)
            except OSError as error:
                if is_link(beside):
                    return f"{beside} is a link, and a lock cannot be one. Delete it, or choose another name=..."
                return str(write_fault(beside, str(error.strerror), _CHOOSE_ANOTHER))
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError):
                os.close(file)
                return (
                    f"{self.path}: another process is running in it. Wait until it ends or stop it, or start this one "
                    "with name=..."
                )
            except OSError:
                # A file system without locks keeps nobody out, and nobody in.
                os.close(file)
                return None
            # Who had it may have removed it meanwhile; then the lock is on a file that nobody else will find.
            if _is_that_file(beside, file):
                self._claim = file
                return None
            os.close(file)

    def release(self) -> None:
        """Let others in again."""
        if self._claim is not None:
            # Before it is closed, while nobody else can have it.
            with suppress(OSError):
                self._beside("lock").unlink()
            os.close(self._claim)
            self._claim = None

    def leave(self, word: str) -> None:
        """Leave a word beside the folder, for other processes to find."""
        remove(self._beside("word"))  # it may be a link, through which another file would be written
        write_file(self._beside("word"), word)

    def finds(self, word: str) -> bool:
        """Whether the word is there, which a network's file system may show some seconds late."""
        until = time.monotonic() + _SECONDS_TO_BE_SEEN
        while True:
            with suppress(OSError, UnicodeDecodeError):
                if self._beside("word").read_text(encoding="utf-8") == word:
                    return True
            if time.monotonic() > until:
                return False
            time.sleep(0.2)

    def take_back(self) -> None:
        """Remove the word."""
        with suppress(OSError):
            self._beside("word").unlink()

    def _beside(self, ending: str) -> Path:
        return self.path.with_name(f".{self.path.name}.{ending}")

    def prepare(self, recipe: str, *, overwrite: bool) -> None:
        """
        Make the folder ready for a launch that ``require_free`` let pass.

        Args:
            recipe: as it runs; written before anything else, since it is what makes the folder that of a run.
            overwrite: empty the folder first.

        Raises:
            FinetuneError: it cannot be written.
        """
        try:
            if overwrite and path_exists(self.path):
                # Emptied, not removed: it may be a link to where there is room. What makes it a run's folder goes last,
                # so that a launch which is killed meanwhile can be repeated.
                for inside in sorted(self.path.iterdir(), key=lambda path: path.name == RECIPE_FILE):
                    remove(inside)
            self.path.mkdir(parents=True, exist_ok=True)
            self.write_text(RECIPE_FILE, recipe)
        except OSError as error:
            raise write_fault(self.path, str(error.strerror), _CHOOSE_ANOTHER) from error

    def write_text(self, name: str, text: str) -> None:
        """Write a file of the folder, whole or not at all."""
        write_file(self.path / name, text)

    def write_json(self, name: str, content: Any) -> None:
        """Write a JSON file of the folder, whole or not at all."""
        self.write_text(name, json.dumps(content, indent=2) + "\n")

    def checkpoint(self, step: int) -> Path:
        """The resume point of a step."""
        return self.checkpoints / f"step_{step:08d}"

    def writing(self, step: int) -> Path:
        """Where a resume point is written before ``finish_writing`` gives it its name."""
        return self.checkpoints / f".writing_{step:08d}"

    def start_writing(self, step: int) -> None:
        """An empty folder to write a resume point into; what a kill left of another one goes."""
        self.drop_unfinished()
        self.writing(step).mkdir(parents=True)

    def drop_unfinished(self) -> None:
        """Remove what was begun and has no name yet."""
        for unfinished in self.checkpoints.glob(".writing_*"):
            shutil.rmtree(unfinished, ignore_errors=True)

    def finish_writing(self, step: int, keep: int) -> list[str]:
        """
        Give the resume point its name, so that it exists whole or not at all; keep only the newest ``keep``.

        Returns:
            Sentences about older ones that cannot be deleted: the new one stands all the same.
        """
        move_into_place(self.writing(step), self.checkpoint(step))
        notes = []
        for old in self.newest_first()[keep:]:
            try:
                shutil.rmtree(old)
            except OSError as error:
                if old in self._kept_against_will:
                    continue
                self._kept_against_will.add(old)
                notes.append(f"{old}: an old resume point cannot be deleted ({first_line(error)}); the run goes on")
        return notes

    def sync_metrics(self) -> None:
        """Wait until the disk has the rows so far: a resume point counts on those of the steps before it."""
        if path_exists(self.path / METRICS_FILE):
            sync(self.path / METRICS_FILE)

    def newest_first(self) -> list[Path]:
        """The resume points, the newest first."""
        return sorted(self.checkpoints.glob("step_*"), reverse=True)


def digest(content: Any) -> str:
    """SHA-256 of plain values, as hexadecimal digits."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def lasting_digest(recipe: Mapping[str, Any]) -> str:
    """SHA-256 of what a recipe must keep from a run to its resumption, wherever its folder, data and base lie."""
    return digest(_lasting(recipe))


def _lasting(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe without what may change and without places."""
    lasting = {name: copy.deepcopy(value) for name, value in recipe.items()}
    for key in (*RESUME_MUTABLE, *PLACES):
        *section, name = key.split(".")
        inside = lasting.get(section[0]) if section else lasting
        if isinstance(inside, dict):
            inside.pop(name, None)
    data = lasting.get("data")
    for part in ("train", "val"):
        entries = data.get(part) if isinstance(data, dict) else None
        for entry in entries if isinstance(entries, list) else ():
            for name in PLACES_OF_DATA if isinstance(entry, dict) else ():
                # Whether there is one says how the data are laid out.
                if isinstance(entry.get(name), str):
                    entry[name] = "somewhere"
    return lasting


def differing_keys(old: Any, new: Any, prefix: str = "") -> list[str]:
    """Dotted keys in which two mappings of plain values differ."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        return [
            key
            for name in sorted({*old, *new})
            for key in differing_keys(old.get(name), new.get(name), f"{prefix}.{name}" if prefix else str(name))
        ]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        old, new = ({str(place): value for place, value in enumerate(values)} for values in (old, new))
        return differing_keys(old, new, prefix)
    return [] if old == new else [prefix]


def _holds(content: Any, key: str) -> bool:
    """Whether a dotted key is in plain values."""
    inside = content
    for name in key.split("."):
        if isinstance(inside, list):
            inside = {str(place): value for place, value in enumerate(inside)}
        if not isinstance(inside, Mapping) or name not in inside:
            return False
        inside = inside[name]
    return True


def require_same_run(
    folder: RunFolder, recipe: Mapping[str, Any], record: Mapping[str, Any], written: Collection[str] | None = None
) -> None:
    """
    Args:
        folder: of the run that is to go on.
        recipe: of this launch, as plain values.
        record: what ``environment.json`` would say of this launch.
        written: dotted keys that somebody has written into the recipe of this launch; None: all. The others have their
            defaults, and leave what a run of an older version, which did not have them, did.

    Raises:
        FinetuneError: the run was made by another recipe, on other data or weights, or with another total batch. Where
            they lie does not count.
    """
    try:
        _require_same(folder, recipe, record, written)
    except RecursionError as error:
        raise _damaged(folder.environment) from error


def _require_same(
    folder: RunFolder, recipe: Mapping[str, Any], record: Mapping[str, Any], written: Collection[str] | None
) -> None:
    ran = _lasting(_read(folder.recipe))
    differing = [
        key for key in differing_keys(ran, _lasting(recipe)) if written is None or key in written or _holds(ran, key)
    ]
    if differing:
        raise FinetuneError(
            f"{folder.recipe}: the run was made with another {', '.join(differing)}. Resume with the same values "
            f"(only {', '.join(RESUME_MUTABLE)} may differ, and where data, base and run folder lie), or start another "
            "run with name=..."
        )
    if not is_file(folder.environment):
        return
    old = _read(folder.environment)
    differing = [key for name, key in RESUME_FIXED.items() if old.get(name) != record[name]]
    frames = old.get("frames")
    for key, now in record["frames"].items():
        then = frames.get(key) if isinstance(frames, dict) else None
        # A run of an older version has no digest of their content.
        seen = "content_sha256" if isinstance(then, dict) and "content_sha256" in then else "sha256"
        if not isinstance(then, dict) or (then.get("count"), then.get(seen)) != (now["count"], now[seen]):
            count = then.get("count") if isinstance(then, dict) else "unknown"
            differing.append(f"{key} ({count} frames then, {now['count']} now, of other names or content)")
    if differing:
        raise FinetuneError(
            f"{folder.environment}: what {', '.join(differing)} stands for is not what it was when the run began: the "
            "same samples would not follow. Bring the old files and processes back, or start another run with name=..."
        )


def _read(path: Path) -> dict[str, Any]:
    """
    Raises:
        FinetuneError: the file does not hold a mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except OSError as error:
        raise FinetuneError(f"{path}: {error.strerror}. Start another run with name=...") from error
    # A date that there is not, and a number of too many digits, are plain ValueErrors.
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise _damaged(path) from error
    if not isinstance(content, dict):
        raise FinetuneError(f"{path} is empty or damaged, so the run cannot go on. Start another with name=...")
    return content


def _damaged(path: Path) -> FinetuneError:
    return FinetuneError(f"{path} is damaged, so the run cannot go on. Start another with name=...")
