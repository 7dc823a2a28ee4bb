"""A manifest finds every byte that changed, even if all sizes agree."""

import json
import os
import random
from pathlib import Path

import pytest

from finetune.utils.manifest import MANIFEST_FILE, checksum, has_checksums, verify_manifest, write_manifest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of two files with a manifest."""
    (tmp_path / "weights").write_bytes(bytes(range(256)) * 40)
    (tmp_path / "optimizer").write_bytes(b"12345")
    write_manifest(tmp_path, {"step": 3, "more": [1.5, None]})
    return tmp_path


def test_the_content_comes_back(folder: Path) -> None:
    assert verify_manifest(folder) == {"step": 3, "more": [1.5, None]}
    # The value that everybody tests CRC-32 with.
    (folder / "nine").write_bytes(b"123456789")
    assert checksum(folder / "nine") == "cbf43926"


def test_what_is_missing_or_cut_is_named(folder: Path) -> None:
    (folder / "optimizer").write_bytes(b"123")
    with pytest.raises(ValueError, match="optimizer has 3 bytes of 5"):
        verify_manifest(folder)
    (folder / "optimizer").unlink()
    with pytest.raises(ValueError, match="optimizer is missing"):
        verify_manifest(folder)
    for text in ("[]", "", "{", "null", "[" * 100_000):
        (folder / MANIFEST_FILE).write_text(text)
        with pytest.raises(ValueError, match=r"run_state\.json is (missing or unreadable|damaged)"):
            verify_manifest(folder)
    (folder / MANIFEST_FILE).unlink()
    with pytest.raises(ValueError, match=r"run_state\.json is missing"):
        verify_manifest(folder)
    os.mkfifo(folder / MANIFEST_FILE)  # nobody writes into it: who reads it waits without end
    with pytest.raises(ValueError, match=r"run_state\.json is missing or unreadable"):
        verify_manifest(folder)


def test_a_manifest_of_an_older_version_has_only_sizes(folder: Path) -> None:
    assert has_checksums(folder)
    kept = {"step": 3, "recipe_sha256": "0"}
    (folder / MANIFEST_FILE).write_text(json.dumps({**kept, "bytes": {"weights": 10240, "optimizer": 5}}))
    assert not has_checksums(folder)
    assert verify_manifest(folder) == kept
    (folder / "optimizer").write_bytes(b"1234")
    with pytest.raises(ValueError, match="optimizer has 4 bytes of 5"):
        verify_manifest(folder)
    # A manifest of today that lost its own checksum does not count as an older one.
    (folder / MANIFEST_FILE).write_text(
        json.dumps({"content": kept, "files": {"optimizer": {"bytes": 4, "crc32": "0"}}})
    )
    with pytest.raises(ValueError, match=r"run_state\.json is damaged"):
        verify_manifest(folder)
    (folder / MANIFEST_FILE).write_text(json.dumps({**kept, "bytes": 7}))
    with pytest.raises(ValueError, match="missing or unreadable"):
        verify_manifest(folder)


@pytest.mark.parametrize("name", ["weights", "optimizer", MANIFEST_FILE])
def test_one_flipped_bit_is_found_wherever_it_is(folder: Path, name: str) -> None:
    path, draw = folder / name, random.Random(0)
    content = path.read_bytes()
    for place in (0, len(content) - 1, *(draw.randrange(len(content)) for _ in range(200))):
        spoiled = bytearray(content)
        spoiled[place] ^= 1 << draw.randrange(8)
        path.write_bytes(spoiled)
        try:
            # A space in the manifest may become another kind of space, which says the same.
            found: object = verify_manifest(folder)
        except ValueError as error:
            assert name in str(error)
        else:
            assert name == MANIFEST_FILE
            assert chr(content[place]).isspace()
            assert found == {"step": 3, "more": [1.5, None]}
    path.write_bytes(content)
    verify_manifest(folder)


def test_zeros_as_a_power_cut_leaves_them_are_found(folder: Path) -> None:
    content = (folder / "weights").read_bytes()
    for first, last in ((0, 10240), (5120, 10240), (4096, 8192), (10239, 10240)):
        (folder / "weights").write_bytes(content[:first] + bytes(last - first) + content[last:])
        with pytest.raises(ValueError, match="weights is damaged"):
            verify_manifest(folder)


def test_everybody_may_read_what_the_umask_lets_them(tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(b"1")
    (tmp_path / "weights").chmod(0o600)
    write_manifest(tmp_path, {})
    (tmp_path / "as usual").write_bytes(b"1")
    modes = {path.stat().st_mode for path in tmp_path.iterdir()}
    assert len(modes) == 1
