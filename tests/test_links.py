"The link checker finds addresses as readers would, and tells what is gone from what only refuses."

from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import check_links
import pytest


@pytest.mark.parametrize(
    "text, found",
    [
        ("see [it](https://a.org/b).", {"https://a.org/b"}),
        ("https://a.org/b, and <https://c.org/d#part>", {"https://a.org/b", "https://c.org/d"}),
        ("`https://a.org/x`; http://localhost:8888/lab", {"https://a.org/x"}),
        ("https://example.org/x has no page", set()),
    ],
)
def test_addresses_of_a_text(text, found):
    assert check_links.addresses(text) == found


def test_the_chapters_hold_addresses():
    everything = {address for text in check_links.texts().values() for address in check_links.addresses(text)}
    assert len(everything) > 20 and all(address.startswith("http") for address in everything)


def test_gone_is_not_the_same_as_refused():
    class Server(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(int(self.path[1:]))
            self.end_headers()

        def log_message(self, *words):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    Thread(target=server.serve_forever, daemon=True).start()
    base = f"http://127.0.0.1:{server.server_port}"
    try:
        said = [check_links.answer(f"{base}/{code}", tries=1) for code in (200, 404, 403)]
    finally:
        server.shutdown()
    assert said == ["ok", "gone: 404", "unsure: 403"]
