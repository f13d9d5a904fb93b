"""A model hub on this machine: as much of huggingface.co as huggingface_hub asks for, over a folder of files."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@contextlib.contextmanager
def serve(name: str, folder: Path) -> Iterator[tuple[str, list[str]]]:
    """(address for HF_ENDPOINT, paths whose contents were fetched) of a hub that has one model."""
    fetched: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path.startswith(f"/api/models/{name}/tree/"):
                self._json(
                    [{"type": "file", "oid": _etag(f), "size": f.stat().st_size, "path": f.name} for f in files()]
                )
            elif path in (f"/api/models/{name}", f"/api/models/{name}/revision/main"):
                self._json({"id": name, "sha": COMMIT, "siblings": [{"rfilename": f.name} for f in files()]})
            elif path.startswith(f"/{name}/resolve/") and (file := folder / path.rsplit("/")[-1]).is_file():
                self._file(file)
            else:
                self._answer(404, b"", {"X-Error-Code": "RepoNotFound"})

        def _json(self, value: object) -> None:
            self._answer(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

        def _file(self, file: Path) -> None:
            if self.command == "GET":
                fetched.append(file.name)
            self._answer(200, file.read_bytes(), {"ETag": f'"{_etag(file)}"', "X-Repo-Commit": COMMIT})

        def _answer(self, code: int, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(code)
            for key, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    def files() -> list[Path]:
        return sorted(file for file in folder.iterdir() if file.is_file())

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", fetched
    finally:
        server.shutdown()
        server.server_close()


def _etag(file: Path) -> str:
    return hashlib.sha1(file.read_bytes()).hexdigest()
