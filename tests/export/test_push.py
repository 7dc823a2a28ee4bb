"""What is sent to the hub, by its own client to a stand-in on this machine, and what is refused before."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest

from finetune.commands import export
from finetune.export.push import Push, push_folder, require_permission
from finetune.utils.errors import FinetuneError
from tests.small_models import write_model

TOKEN = "hf_theSecretOfAnn"
CARD = "---\nlicense: apache-2.0\n---\n# Room\n"


class Hub(ThreadingHTTPServer):
    """A hub with room for one repository."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), HubHandler)
        self.asked: list[tuple[str, Any, str]] = []
        self.private: bool | None = None
        self.files: dict[str, bytes] = {}
        self.refuses = False


class HubHandler(BaseHTTPRequestHandler):
    """Answers what ``create_repo``, ``model_info`` and ``upload_folder`` ask."""

    server: Hub

    def do_GET(self) -> None:
        known = self.server.private is not None
        self.answer({"id": "ann/room", "private": self.server.private, "siblings": []}, 200 if known else 404)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        lines = [json.loads(line) for line in body.splitlines() if line]
        self.server.asked.append((self.path, lines, self.headers.get("Authorization", "")))
        if self.server.refuses:
            self.answer({"error": f"Token {TOKEN} may not write"}, 403)
        elif self.path == "/api/repos/create":
            exists = self.server.private is not None
            if not exists:
                self.server.private = lines[0].get("private", lines[0].get("visibility") == "private")
            self.answer(
                {"url": "https://huggingface.co/ann/room", "error": "You already created this model repo"},
                409 if exists else 200,
            )
        elif self.path.endswith("/preupload/main"):
            mode = {"uploadMode": "regular", "shouldIgnore": False}
            self.answer({"files": [{**file, **mode} for file in lines[0]["files"]]})
        elif self.path.endswith("/commit/main"):
            for line in lines:
                if line["key"] == "file":
                    self.server.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            self.answer(
                {
                    "success": True,
                    "commitOid": "1" * 40,
                    "commitUrl": "https://huggingface.co/ann/room/commit/1",
                    "hookOutput": "",
                }
            )
        else:
            self.answer({"errors": [], "warnings": []})

    def answer(self, content: object, status: int = 200) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Keeps the test's output to the test."""


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "room-hf"
    path.mkdir()
    (path / "README.md").write_text(CARD)
    (path / "model.safetensors").write_bytes(b"weights")
    return path


def test_all_of_the_folder_is_sent_as_it_is_and_private(hub: Hub, folder: Path) -> None:
    (said,) = push_folder(Push(repository="ann/room"), folder, "Apache-2.0")
    assert hub.private is True
    assert hub.files == {"README.md": CARD.encode(), "model.safetensors": b"weights"}
    assert said.startswith("2 files of ") and said.endswith("/ann/room, private") and "license Apache-2.0" in said
    assert {sender for *_, sender in hub.asked if sender} == {f"Bearer {TOKEN}"}
    # Again, into the same repository; and in the open only if that is asked for.
    push_folder(Push(repository="ann/room"), folder, "Apache-2.0")
    hub.private, hub.files = None, {}
    assert push_folder(Push(repository="ann/room", public=True), folder, None)[0].endswith("public")
    assert hub.private is False and len(hub.files) == 2
    hub.files = {}
    with pytest.raises(FinetuneError, match=r"this repository is public already\. Add --public"):
        push_folder(Push(repository="ann/room"), folder, "Apache-2.0")
    assert not hub.files


def test_a_dry_run_sends_nothing(hub: Hub, folder: Path) -> None:
    (said,) = push_folder(Push(repository="ann/room", dry_run=True), folder, "Apache-2.0")
    assert not hub.asked
    assert said.startswith("dry run, nothing was sent: 2 files") and said.endswith("README.md, model.safetensors")


def test_a_refusal_names_the_reason_and_not_the_token(hub: Hub, folder: Path) -> None:
    hub.refuses = True
    with pytest.raises(FinetuneError, match=r"nothing, or not all, was sent to http://127\.0\.0\.1") as refused:
        push_folder(Push(repository="ann/room"), folder, None)
    assert "403" in str(refused.value) and "theSecret" not in str(refused.value)
    assert refused.value.__cause__ is None and not hub.files


@pytest.mark.parametrize(
    "name", ["room", "ann/", "a/b/c", "ann/ro om", "../ann", "ann/..", "-a/b", "ann/b-", "a/" + "b" * 95]
)
def test_a_name_that_no_repository_can_have(name: str) -> None:
    with pytest.raises(FinetuneError, match="expected USER/NAME, such as ann/room-depth"):
        Push(repository=name)


@pytest.mark.parametrize(
    ("license_name", "private", "public"),
    [
        ("Apache-2.0", "", ""),
        ("CC-BY-NC-4.0", "neither you nor anybody who takes it may use it commercially", "only; neither you"),
        ("CC-BY-NC-ND-4.0", "forbids to share changed weights: keep", "stopped: which forbids to share weights"),
        ("Their-Own", "is not known here: read it before", "stopped: whether license Their-Own of base.pth lets"),
        (None, "no license of base.pth is known: keep", "stopped: without one nobody may publish"),
    ],
)
def test_what_a_license_allows(license_name: str | None, private: str, public: str) -> None:
    predictor: Any = SimpleNamespace(base={"license": license_name, "source": "base.pth"}, source="runs/room")
    said = require_permission(Push(repository="ann/room"), predictor)
    assert private in " ".join(said) and bool(said) == bool(private)
    if public.startswith("stopped: "):
        with pytest.raises(FinetuneError, match=public.removeprefix("stopped: ")):
            require_permission(Push(repository="ann/room", public=True), predictor)
    else:
        assert public in " ".join(require_permission(Push(repository="ann/room", public=True), predictor))


def test_the_command_refuses_before_it_writes_or_sends(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    weights, out = write_model(tmp_path / "m.safetensors"), tmp_path / "room-hf"
    call = [str(weights), "--to", "huggingface", "--output", str(out)]
    for words, sentence in {
        ("--to", "official", "--push", "ann/room"): "--push is for --to huggingface",
        ("--public",): "--public is for --push",
        ("--dry-run",): "--dry-run is for --push",
        ("--push", "room"): "--push room: expected USER/NAME",
    }.items():
        assert_refused([*call, *words], sentence, capsys)
    monkeypatch.setattr("finetune.export.push.require_permission", refuse)
    assert_refused([*call, "--push", "ann/room"], "forbidden", capsys)
    monkeypatch.undo()
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    assert_refused([*call, "--push", "ann/room"], "there is no token of the hub here. Call hf auth login", capsys)
    assert not hub.asked and not out.exists()


def refuse(*_: object) -> list[str]:
    raise FinetuneError("forbidden.")


def assert_refused(call: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        status = export.main(call)
    except SystemExit as ended:  # argparse's
        status = int(str(ended.code))
    assert status == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.slow
def test_an_export_goes_there_with_its_card(hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights, out = write_model(tmp_path / "m.safetensors"), tmp_path / "room-hf"
    call = [str(weights), "--to", "huggingface", "--output", str(out), "--push", "ann/room"]
    assert export.main([*call, "--dry-run"]) == 0
    assert "dry run, nothing was sent" in capsys.readouterr().out and not hub.asked
    assert export.main([*call, "--force"]) == 0
    said = capsys.readouterr()
    assert "/ann/room, private" in said.out and TOKEN not in said.out + said.err
    assert hub.files == {path.name: path.read_bytes() for path in out.iterdir()}
    assert hub.files["README.md"].startswith(b"---\nlicense: apache-2.0")
