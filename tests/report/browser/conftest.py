"""Debian's Chromium on a page that was written to a file. Nothing may leave: what asks for an address is stopped and
written down.

    apt-get install --no-install-recommends chromium fonts-dejavu-core && pip install -e '.[test,browser]'

Elsewhere these tests are skipped; with MLX_SSD_BROWSER=required, as in .ci/run, a missing browser is a failure.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from mlx_ssd.report.page import page as made
from tests.report import hostile, synthetic

REQUIRED = os.environ.get("MLX_SSD_BROWSER") == "required"
WIDTHS, THEMES = (1440, 390), ("light", "dark")
HEIGHT = 800
SAMPLES = 200


def absent(what: str) -> None:
    message = f"{what}: install it as tests/report/browser/conftest.py says"
    pytest.fail(message) if REQUIRED else pytest.skip(message)


@dataclass
class Opened:
    """A page in the browser, and what went wrong or tried to leave."""

    page: Any
    messages: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    stopped: list[tuple[str, str]] = field(default_factory=list)  # (address, by what)


@pytest.fixture(scope="session")
def chromium():
    executable = shutil.which("chromium") or shutil.which("chromium-browser")
    if not executable:
        absent("there is no chromium")
    if importlib.util.find_spec("playwright") is None:
        absent("there is no playwright")
    from playwright.sync_api import sync_playwright

    patch = pytest.MonkeyPatch()
    patch.delenv("LD_PRELOAD", raising=False)  # a matrix library is nothing for a browser
    with sync_playwright() as driver:
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = driver.chromium.launch(executable_path=executable, args=arguments)
        yield browser
        browser.close()
    patch.undo()


@pytest.fixture
def opening(chromium):
    """opening(path, width, theme) -> context manager of Opened."""

    @contextlib.contextmanager
    def opened(path: Path, width: int = 1440, theme: str = "light") -> Iterator[Opened]:
        context = chromium.new_context(viewport={"width": width, "height": HEIGHT}, color_scheme=theme)
        found = Opened(context.new_page())
        context.route("**/*", lambda route: route.continue_() if route.request.url == path.as_uri() else route.abort())
        found.page.on("request", lambda request: found.requests.append(request.url))
        found.page.on("requestfailed", lambda request: found.stopped.append((request.url, request.failure)))
        found.page.on("console", lambda message: found.messages.append(f"{message.type}: {message.text}"))
        found.page.on("pageerror", lambda error: found.messages.append(f"error: {error}"))
        found.page.goto(path.as_uri())
        yield found
        context.close()

    return opened


@pytest.fixture(scope="session")
def report(tmp_path_factory) -> Path:
    """A generated run with 200 samples, all of it analysed."""
    return _written(tmp_path_factory, synthetic.page_material(SAMPLES))


@pytest.fixture(scope="session")
def hostile_report(tmp_path_factory) -> Path:
    return _written(tmp_path_factory, hostile.material())


def _written(factory: Any, material: Any) -> Path:
    path = factory.mktemp("page") / "report.html"
    path.write_text(made.render(material), encoding="utf-8")
    return path
