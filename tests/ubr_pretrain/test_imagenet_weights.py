"""torchvision's weights: of the right hash wherever they come from, or one line that says so."""

import hashlib
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import torch

from ubr_pretrain import imagenet_weights as weights
from ubr_pretrain.backbone import read_imagenet_trunk
from ubr_pretrain.layouts import tensor_names
from ubr_pretrain.train_ubr import main
from ubr_pretrain.trunk import Trunk

NAME = "vgg16-397923af.pth"
FLAG = "--imagenet-weights"
URL = f"https://download.pytorch.org/models/{NAME}"


@pytest.fixture
def cached(tmp_path, monkeypatch) -> Path:
    """Where torchvision keeps the file; the folder is empty."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    for proxy in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(proxy, raising=False)
    monkeypatch.setattr("urllib.request._opener", None)  # it remembers the proxies
    return tmp_path / "torch" / "hub" / "checkpoints" / NAME


@contextmanager
def server(answer: bytes) -> Iterator[int]:
    """Serve the same bytes for every name."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield http.server_port
        finally:
            http.shutdown()
            thread.join()


def begun(tmp_path: Path, capsys, *flags: str) -> str:
    """Begin a training from ImageNet in vain; return its one line."""
    (tmp_path / "ct").mkdir()
    arguments = ["--init", "imagenet", "--data", str(tmp_path / "ct")]
    try:
        code = main([*arguments, *flags, "--out", str(tmp_path / "run")])
    except SystemExit as error:
        code = error.code
    told = capsys.readouterr().err.strip().splitlines()
    assert code in (1, 2)
    assert not any("Traceback" in line for line in told)
    return told[-1]


def small_weights(file: Path) -> bytes:
    """Write weights in torchvision's layout that are not its own; return the file's bytes."""
    trunk = Trunk(width=0.1).state_dict()
    file.parent.mkdir(parents=True, exist_ok=True)
    names = tensor_names("vgg16", "torchvision")
    torch.save({theirs: trunk[own].clone() for own, theirs in names.items()}, file)
    return file.read_bytes()


def test_C14_a_cached_file_with_another_hash_is_refused(cached, tmp_path, capsys):
    """A file in torchvision's cache whose SHA-256 is another is refused, with both hashes and the
    URL; so is a file of that name given by flag, an HTML page, and what lies cut off there."""
    for content in (small_weights(cached), b"<html>sign in</html>", b""):
        cached.write_bytes(content)
        expected = rf"{NAME}: SHA-256 begins with {hashlib.sha256(content).hexdigest()[:8]}, .*"
        for file in (None, cached):
            with pytest.raises(ValueError, match=rf"{expected}397923af.*; .*fetch {URL}"):
                read_imagenet_trunk(file, "vgg16")
    cached.write_bytes(b"<html>sign in</html>")
    assert "397923af, looks like a web page" in begun(tmp_path, capsys)


def test_C14_a_download_with_another_hash_is_not_kept(cached, tmp_path, capsys, monkeypatch):
    """A download whose SHA-256 is another is refused with the expected one, and not kept."""
    with server(b"<html>not found</html>") as port:
        monkeypatch.setattr(weights, "imagenet_url", lambda _: f"http://127.0.0.1:{port}/{NAME}")
        line = begun(tmp_path, capsys)
    assert 'expected "397923af"' in line
    assert f"(its SHA-256 begins with 397923af) elsewhere and pass the file with {FLAG}" in line
    assert [*cached.parent.iterdir()] == []


def test_what_is_fetched_once_is_read_from_the_cache(cached, tmp_path, monkeypatch):
    content = small_weights(tmp_path / "theirs.pth")
    name = f"small-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    with server(content) as port:
        monkeypatch.setattr(weights, "imagenet_url", lambda _: f"http://127.0.0.1:{port}/{name}")
        assert weights.imagenet_weights("vgg16").read_bytes() == content
    again = weights.imagenet_weights("vgg16")  # nobody serves it any more
    assert again == cached.with_name(name)
    assert again.read_bytes() == content


def test_C14_without_network_the_message_says_what_to_do(cached, tmp_path, capsys, monkeypatch):
    """Without a network the line names the URL, the beginning of the SHA-256, and the flag that
    takes a file which was downloaded elsewhere."""
    with socket.socket() as nobody:  # bound and not listening: connections are refused
        nobody.bind(("127.0.0.1", 0))
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{nobody.getsockname()[1]}")
        line = begun(tmp_path, capsys)
    assert "Connection refused" in line
    assert f"download {URL} (its SHA-256 begins with 397923af) elsewhere" in line
    assert FLAG in line


def test_C14_a_server_that_never_answers_is_not_waited_for(cached, tmp_path, capsys, monkeypatch):
    """A proxy that takes the connection and says nothing is given up after 30 seconds (half a
    second here), with the same line; no other connection has that limit afterwards."""
    assert weights.SILENCE_S == 30
    monkeypatch.setattr(weights, "SILENCE_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{silent.getsockname()[1]}")
        began_s = time.monotonic()
        line = begun(tmp_path, capsys)
    assert time.monotonic() - began_s < 20
    assert "timed out" in line
    assert URL in line
    assert socket.getdefaulttimeout() is None
