"""Looks at each page of the site in Chromium, wide and narrow, light and dark: ``python docs/look.py site [folder]``.

A page fails where something is wider than the window, a picture is broken, or another server is asked for anything.
With a folder, a picture of each page is saved there, for somebody to look at.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import product
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

WIDTHS, SCHEMES = (1400, 390), ("light", "dark")
IS_TOO_WIDE = "document.documentElement.scrollWidth > window.innerWidth"
BROKEN = "[...document.images].filter(each => each.complete && !each.naturalWidth).map(each => each.src)"


class _Silent(SimpleHTTPRequestHandler):
    def log_message(self, *args: Any) -> None:
        pass


@contextlib.contextmanager
def served(site: str) -> Iterator[str]:
    """Serves a folder as long as the context is open, and gives its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Silent, directory=site))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()


def faults_of(tab: Any, home: str, page: str) -> list[str]:
    """Returns what is wrong with a page."""
    asked: list[str] = []
    tab.on("request", lambda request: asked.append(request.url))
    tab.goto(home + page, wait_until="load")
    too_wide = ["is wider than the window"] if tab.evaluate(IS_TOO_WIDE) else []
    broken = [f"has a broken picture, {url}" for url in tab.evaluate(BROKEN)]
    return too_wide + broken + [f"asks for {url}" for url in asked if not url.startswith((home, "data:", "blob:"))]


def look(site: str, pictures: str | None = None) -> Iterator[str]:
    """Yields what is wrong with the pages of a site.

    Args:
        site: The folder of the site.
        pictures: Where a picture of each page goes, if anywhere.
    """
    pages = sorted(path.relative_to(site).as_posix() for path in Path(site).rglob("*.html"))
    with served(site) as home, sync_playwright() as tools:
        browser = tools.chromium.launch(executable_path=shutil.which("chromium"))
        for width, scheme in product(WIDTHS, SCHEMES):
            window = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
            for page in pages:
                tab = window.new_page()
                yield from (f"{page} at {width} px, {scheme}: {fault}" for fault in faults_of(tab, home, page))
                if pictures:
                    name = page.removesuffix(".html").replace("/", "-")
                    tab.screenshot(path=Path(pictures, f"{name}-{width}-{scheme}.png"), full_page=True)
                tab.close()
            window.close()
        browser.close()


if __name__ == "__main__":
    sys.exit("\n".join(look(*sys.argv[1:])) or None)
