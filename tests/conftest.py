"""What all tests share."""

import functools
import http.server
import threading
from dataclasses import dataclass, field

import hypothesis
import pytest

# A busy machine must not fail a test; the same examples every time keep a run repeatable.
hypothesis.settings.register_profile("repeatable", deadline=None, derandomize=True)
hypothesis.settings.load_profile("repeatable")


@dataclass
class FileServer:
    """What a server on this machine serves and was asked for.

    Attributes:
        files: path, as "an4.tar.gz" → content.
        requests: of each request in turn the path and its Range header, or None.
        breaks: of each answer in turn after how many bytes it breaks off; none: it does not.
        answers: of each request in turn a status to answer instead, as 503; none: the file.
        has_ranges: False sends every file from its beginning.
        lies: answers a range with 206 and the whole file.
        range_bytes: most that one answer to a range holds; None: all that follows.
        url: the address of the folder.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    breaks: list[int] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)
    has_ranges: bool = True
    lies: bool = False
    range_bytes: int | None = None
    url: str = ""


class _Handler(http.server.BaseHTTPRequestHandler):
    def __init__(self, server: FileServer, *arguments):
        self.served = server
        super().__init__(*arguments)

    def do_GET(self):
        served, path = self.served, self.path.lstrip("/")
        wanted = self.headers.get("Range")
        served.requests.append((path, wanted))
        if served.answers:
            self.send_error(served.answers.pop(0))
            return
        if path not in served.files:
            self.send_error(404)
            return
        body = served.files[path]
        has_range = wanted is not None and served.has_ranges
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if has_range else 0
        if has_range and start >= len(body):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(body)}")
            self.end_headers()
            return
        end = len(body)
        self.send_response(206 if has_range else 200)
        if has_range:
            start = 0 if served.lies else start
            end = min(end, start + (served.range_bytes or end))
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(body)}")
        self.send_header("Content-Length", str(end - start))
        self.end_headers()
        end = start + served.breaks.pop(0) if served.breaks else end
        self.wfile.write(body[start:end])

    def log_message(self, *arguments):
        pass


@pytest.fixture
def file_server():
    """A FileServer without files, running for one test."""
    served = FileServer()
    handler = functools.partial(_Handler, served)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        served.url = f"http://127.0.0.1:{running.server_port}"
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield served
        running.shutdown()
        thread.join()


@pytest.fixture
def global_state_is_put_back():
    """Undo what a training does to torch's generator and matrix products."""
    import torch

    precision = torch.get_float32_matmul_precision()
    with torch.random.fork_rng():
        yield
    torch.set_float32_matmul_precision(precision)
