"""Whom to trust on a line that is encrypted."""

from __future__ import annotations

import ssl


def context() -> ssl.SSLContext:
    """What the system and its settings (SSL_CERT_FILE) trust, and what certifi does: python.org's Python for macOS has
    nothing of its own until a program beside it was run."""
    import certifi

    found = ssl.create_default_context()
    found.load_verify_locations(certifi.where())
    return found
