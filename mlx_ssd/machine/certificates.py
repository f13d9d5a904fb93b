"""Whom to trust on a line that is encrypted."""

from __future__ import annotations

import contextlib
import ssl


def context() -> ssl.SSLContext:
    """What the system and its settings (SSL_CERT_FILE) trust, and what certifi does: python.org's Python for macOS has
    nothing of its own until a program beside it was run."""
    found = ssl.create_default_context()
    with contextlib.suppress(ImportError):  # other packages bring it, not all of them
        import certifi

        found.load_verify_locations(certifi.where())
    return found
