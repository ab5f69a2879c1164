"""A local hub with the part of the real protocol that huggingface_hub needs to load a model."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_the_right_token"


@dataclass
class Repo:
    """revisions: branch or tag → commit. commits: commit → file name → content. needs: who may read it."""

    revisions: dict[str, str] = field(default_factory=dict)
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    needs: str = ""  # "", "token", "terms"

    def commit(self, files: Mapping[str, bytes], *names: str) -> str:
        """Store these files under the names; return the new commit's hash."""
        digest = hashlib.sha1(b"".join(k.encode() + v for k, v in sorted(files.items()))).hexdigest()
        self.commits[digest] = dict(files)
        self.revisions |= dict.fromkeys(names, digest)
        return digest


@dataclass
class Hub:
    """url: what HF_ENDPOINT gets. asked: every request, as "GET /path"; agents: their user agents.

    breaks: how many large files are cut in the middle; silent_after_break: from then on every
    connection is closed without a response. status, page: the response to every request. files: those
    outside all models, by path.
    """

    url: str = ""
    repos: dict[str, Repo] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    agents: list[str] = field(default_factory=list)
    breaks: int = 0
    silent_after_break: bool = False
    is_silent: bool = False
    status: int = 0
    page: bytes = b""
    files: dict[str, bytes] = field(default_factory=dict)

    def environment(self, home: Path, **others: str) -> dict[str, str]:
        """Return the variables that point huggingface_hub to this hub and to nothing else on the machine."""
        return {"HF_ENDPOINT": self.url, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"} | others

    def sent(self, name: str) -> int:
        """Return how often a file was sent."""
        return sum(line.startswith("GET") and line.endswith(name) for line in self.asked)


@contextmanager
def running_hub() -> Iterator[Hub]:
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (_Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Refusal(Exception):
    def __init__(self, status: int, code: str = "", message: str = "") -> None:
        self.status, self.code, self.message = status, code, message


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, *, body: bool) -> None:
        path = urlsplit(self.path).path
        self.hub.asked.append(f"{self.command} {unquote(path)}")
        self.hub.agents.append(self.headers.get("User-Agent", ""))
        if self.hub.is_silent and self.hub.silent_after_break:
            self.close_connection = True
            return
        try:
            if self.hub.page:
                return self.send(200, self.hub.page, {"Content-Type": "text/html"}, body)
            if self.hub.status:
                raise _Refusal(self.hub.status)
            if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/([^/]+))?", path):
                self.model(found[1], unquote(found[2] or "main"), body)
            elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/refs", path):
                self.refs(self.repo(found[1], "model"), body)
            elif path in self.hub.files:
                self.send(200, self.hub.files[path], {"ETag": path}, body)
            elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
                self.file(found[1], unquote(found[2]), unquote(found[3]), body)
            else:
                raise _Refusal(404)
        except _Refusal as refusal:
            codes = {"X-Error-Code": refusal.code, "X-Error-Message": refusal.message}
            self.send(refusal.status, b"", {k: v for k, v in codes.items() if v}, body)

    def repo(self, name: str, what: str) -> Repo:
        """What the real hub does: the model's page of a gated one can be read, its files cannot."""
        sent = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if sent and not sent.startswith("hf_"):
            raise _Refusal(401, message="Invalid credentials in Authorization header")
        repo = self.hub.repos.get(name)
        if repo is None or (repo.needs == "token" and sent != TOKEN):
            raise _Refusal(404 if sent else 401, "RepoNotFound", "Repository not found")
        if repo.needs == "terms" and what == "file" and sent != TOKEN:
            raise _Refusal(403 if sent else 401, "GatedRepo", "Access to model is restricted")
        return repo

    def revision(self, repo: Repo, revision: str) -> str:
        commit = repo.revisions.get(revision, revision)
        if commit not in repo.commits:
            raise _Refusal(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return commit

    def model(self, name: str, revision: str, body: bool) -> None:
        repo = self.repo(name, "model")
        commit = self.revision(repo, revision)
        siblings = [{"rfilename": file} for file in repo.commits[commit]]
        self.send_json({"id": name, "modelId": name, "sha": commit, "siblings": siblings, "tags": []}, body)

    def refs(self, repo: Repo, body: bool) -> None:
        kinds: dict[str, list[Any]] = {"branches": [], "tags": [], "converts": []}
        for name, commit in repo.revisions.items():
            kind = "branches" if name == "main" else "tags"
            kinds[kind].append({"name": name, "ref": f"refs/{name}", "targetCommit": commit})
        self.send_json(kinds, body)

    def file(self, name: str, revision: str, file: str, body: bool) -> None:
        repo = self.repo(name, "file")
        commit = self.revision(repo, revision)
        content = repo.commits[commit].get(file)
        if content is None:
            raise _Refusal(404, "EntryNotFound", "Entry not found")
        headers = {
            "ETag": f'"{hashlib.sha256(content).hexdigest()}"',
            "X-Repo-Commit": commit,
            "X-Linked-Size": str(len(content)),
            "Accept-Ranges": "bytes",
        }
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if asked:
            begin = int(asked[1])
            headers["Content-Range"] = f"bytes {begin}-{len(content) - 1}/{len(content)}"
            self.send(206, content[begin:], headers, body)
        else:
            self.send(200, content, headers, body)

    def send_json(self, plain: Any, body: bool) -> None:
        self.send(200, json.dumps(plain).encode(), {"Content-Type": "application/json"}, body)

    def send(self, status: int, content: bytes, headers: Mapping[str, str], body: bool) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if not body:
            return
        if self.hub.breaks and "ETag" in headers and len(content) > 5000:
            self.hub.breaks -= 1
            self.hub.is_silent = True
            self.wfile.write(content[: len(content) // 2])
            self.close_connection = True
            return
        self.wfile.write(content)

    def log_message(self, *args: Any) -> None:
        pass
