"""Where workers find the run, and the secret that both sides know. No array library."""

from __future__ import annotations

import os

from mlx_ssd.errors import BadInput

WORKERS_AT, SECRET = "MLX_SSD_WORKERS_AT", "MLX_SSD_SECRET"
LEAST_SECRET = 16  # characters


def address_of(text: str, name: str) -> tuple[str, int]:
    """(host, port) of HOST:PORT, [IPv6]:PORT, or PORT alone for every address of this machine. `name`: what is named
    where it is none of these (BadInput)."""
    host, _, port = text.rpartition(":")
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise BadInput(f"{name} {text}: write it as HOST:PORT, for example 192.168.1.10:7070")
    return host.strip("[]") or "0.0.0.0", int(port)


def words(address: tuple[str, int]) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def let_workers_in(text: str) -> None:
    """For the processes that this one starts. Raises BadInput for what is no address, or without a secret."""
    address_of(text, "--workers-at")
    secret()
    os.environ[WORKERS_AT] = text


def workers_at() -> tuple[str, int] | None:
    """Where this process is to let workers join, if it is."""
    text = os.environ.get(WORKERS_AT)
    return address_of(text, WORKERS_AT) if text else None


def secret() -> bytes:
    """Raises BadInput where there is none, or one that could be guessed."""
    text = os.environ.get(SECRET, "")
    if len(text) < LEAST_SECRET:
        what = f"is shorter than {LEAST_SECRET} characters" if text else "is not set"
        raise BadInput(
            f"{SECRET} {what}: set it to the same on every machine, for example to what `openssl rand -hex 16` prints"
        )
    return text.encode()
