"""Put an exported folder of transformers into a repository of the Hugging Face hub; private unless it is asked for."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.utils.errors import FinetuneError, first_line
from finetune.utils.paths import is_file
from finetune.utils.text import count_noun

if TYPE_CHECKING:
    from finetune.inference.predictor import Predictor

# USER/NAME as the hub takes it. Source: huggingface_hub's validate_repo_id.
_PART = r"[A-Za-z0-9_](?:[\w.-]*[A-Za-z0-9_])?"
_ID = re.compile(rf"{_PART}/{_PART}", re.ASCII)
_MAX_ID_LENGTH = 96
# Licenses under which changed weights may be given to anybody.
_FREE = ("Apache-2.0", "MIT", "BSD-2-Clause", "BSD-3-Clause", "CC0-1.0", "CC-BY-4.0", "CC-BY-SA-4.0")


@dataclass(frozen=True, kw_only=True)
class Push:
    """Where an export goes.

    Attributes:
        repository: ``USER/NAME``.
        public: anybody may read it, if this call makes the repository.
        dry_run: say what would be sent, and send nothing.
    """

    repository: str
    public: bool = False
    dry_run: bool = False

    def __post_init__(self) -> None:
        """
        Raises:
            FinetuneError: no repository can have this name.
        """
        name = self.repository
        if not _ID.fullmatch(name) or ".." in name or "--" in name or len(name) > _MAX_ID_LENGTH:
            raise FinetuneError(
                f"--push {name}: expected USER/NAME, such as ann/room-depth: letters, digits, '-', '_' and '.'."
            )


def require_permission(push: Push, predictor: Predictor) -> list[str]:
    """
    Whether the license of the weights lets them be put there; before anything is written or sent.

    What a license allows, of weights that were changed by training (we are no lawyers):
    CC BY-NC 4.0, section 2(a)(1), lets anybody share them for purposes that are not commercial, with credit and a note
    that they were changed (3(a)), which the model card has; it lets nobody sell or use them in a product. The ND
    licenses, section 2(a)(1)(B), let them be made and not be shared. Without a license nothing is allowed.
    A private repository of one's own is not sharing.

    Returns:
        Sentences to print.

    Raises:
        FinetuneError: the license forbids it, or none is known.
    """
    name, base = predictor.base.get("license"), predictor.base.get("source") or predictor.source
    if name in _FREE:
        return []
    private = "Leave out --public, which keeps the repository to yourself"
    if not name:
        if push.public:
            raise FinetuneError(
                f"--push {push.repository} --public: no license of {base} is known, and without one nobody may publish "
                f"its weights. {private}; or ask who gave you the weights."
            )
        return [f"no license of {base} is known: keep {push.repository} private"]
    if "-ND" in name:
        if push.public:
            raise FinetuneError(
                f"--push {push.repository} --public: {base} has license {name}, which forbids to share weights that "
                f"were changed. {private}."
            )
        return [f"license {name} of {base} forbids to share changed weights: keep {push.repository} private"]
    if "-NC" in name:
        return [
            f"license {name} of {base}: it may be shared with credit, as its card gives it, and under this license "
            "only; neither you nor anybody who takes it may use it commercially"
        ]
    if push.public:
        raise FinetuneError(
            f"--push {push.repository} --public: it is not known here whether license {name} of {base} lets changed "
            f"weights be published. {private}, and make it public on the hub's own page once you have read the license."
        )
    return [f"license {name} of {base} is not known here: read it before you make {push.repository} public"]


def require_login(push: Push) -> None:
    """
    Raises:
        FinetuneError: there is no token of the hub on this machine, so nothing could be sent.
    """
    if push.dry_run:
        return
    hub = _import_hub()
    if not hub.get_token():
        raise FinetuneError(
            f"--push {push.repository}: there is no token of the hub here. Call hf auth login, or set HF_TOKEN to one "
            "that may write; or add --dry-run."
        )


def push_folder(push: Push, folder: Path, license_name: str | None) -> list[str]:
    """
    Args:
        push: where to.
        folder: as the format ``huggingface`` wrote and compared it; all of it is sent, as it is.
        license_name: of the weights.

    Returns:
        Sentences to print.

    Raises:
        FinetuneError: the hub refuses, cannot be reached, or holds a public repository of that name.
    """
    hub = _import_hub()
    files = sorted(path for path in folder.rglob("*") if is_file(path))
    size_mb = sum(path.stat().st_size for path in files) / 1e6
    address = f"{hub.constants.ENDPOINT}/{push.repository}"
    described = f"{count_noun(len(files), 'file')} of {folder}, {size_mb:.1f} MB, license {license_name or 'unknown'}"
    if push.dry_run:
        names = ", ".join(str(path.relative_to(folder)) for path in files)
        return [f"dry run, nothing was sent: {described}, to {address}, {_in_a_word(not push.public)}: {names}"]
    api = hub.HfApi()
    try:
        api.create_repo(push.repository, repo_type="model", private=not push.public, exist_ok=True)
        private = bool(api.model_info(push.repository).private)  # a repository that exists keeps its visibility
        if not push.public and not private:
            raise FinetuneError(
                f"--push {push.repository}: this repository is public already. Add --public, or name another."
            )
        api.upload_folder(repo_id=push.repository, folder_path=folder, commit_message="Upload by finetune export")
    except FinetuneError:
        raise
    except Exception as error:  # noqa: BLE001  the client changed its transport twice, and each has its own errors
        reason = _without_secrets([first_line(error), type(error).__name__], hub.get_token())
        raise FinetuneError(
            f"--push {push.repository}: nothing, or not all, was sent to {hub.constants.ENDPOINT} ({reason}). {folder} "
            "is whole: call again with --force, or send it by hf upload."
        ) from None
    return [f"{described}, are in {address}, {_in_a_word(private)}"]


def _in_a_word(private: bool) -> str:
    return "private" if private else "public"


def _without_secrets(texts: Sequence[str], token: str | None) -> str:
    """The texts in one line, without a token that an error may quote."""
    return re.sub(r"hf_\w{6,}", "hf_...", "; ".join(texts).replace(token or "\0", "..."))


def _import_hub() -> Any:
    """Import the hub's client, which would otherwise send the versions of what it runs with."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    import huggingface_hub

    return huggingface_hub
