"""The picture on the README and the landing page: chapter 11's attention figure, photographed in the built
book.

make book; python tools/make_picture.py
"""

import shutil
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

from playwright.sync_api import sync_playwright

BOOK = Path(__file__).parents[1] / "book"
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def main():
    pages = partial(SimpleHTTPRequestHandler, directory=BOOK / "_build" / "html")
    server = ThreadingHTTPServer(("127.0.0.1", 0), pages)
    Thread(target=server.serve_forever, daemon=True).start()
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=BROWSER, args=["--headless", "--no-sandbox"])
        page = browser.new_page(
            viewport={"width": 1100, "height": 900}, device_scale_factor=2, color_scheme="light"
        )
        page.goto(f"http://127.0.0.1:{server.server_port}/08_causal.html")
        figure = page.locator('figure[data-module="attention"]').first
        figure.locator("canvas").first.wait_for()
        figure.screenshot(path=BOOK / "_static" / "attention.png")
        browser.close()
    server.shutdown()


if __name__ == "__main__":
    main()
