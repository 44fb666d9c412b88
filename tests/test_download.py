"""Downloads against a server on this machine that does what bad servers do."""

import contextlib
import errno
import hashlib
import http.server
import ssl
import threading
from unittest.mock import Mock

import numpy as np
import pytest
from torchvision.datasets import CIFAR10

from helpers.data import cifar10
from helpers.data.cifar10 import fetch

CONTENT = np.random.default_rng(0).bytes(300_000)
MD5 = hashlib.md5(CONTENT).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers /<behaviour>; ``log`` keeps (behaviour, Range header) of each request."""

    def do_GET(self) -> None:
        behaviour, wanted = self.path.strip("/"), self.headers.get("Range")
        times = sum(seen == behaviour for seen, _ in self.log)
        self.log.append((behaviour, wanted))
        if behaviour == "missing":
            return self.send_error(404)
        if behaviour == "always-busy" or (behaviour == "busy-twice" and times < 2):
            return self.send_error(503)
        others = {"wrong": bytes(len(CONTENT)), "login-page": b"<html>log in</html>", "other-file": CONTENT * 2}
        content = others.get(behaviour, CONTENT)
        whole = not wanted or behaviour in ("no-range", "login-page")
        start = 0 if whole else int(wanted.removeprefix("bytes=").rstrip("-"))
        self.send_response(200 if whole else 206)
        if not whole:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if behaviour not in ("no-length", "endless"):
            self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        with contextlib.suppress(OSError):  # the other side may have had enough
            self.send_body(behaviour, content[start:], times)
        return None

    def send_body(self, behaviour: str, body: bytes, times: int) -> None:
        if behaviour == "stall" or (behaviour == "stall-once" and times == 0):
            self.wfile.write(body[: 50_000 if times == 0 else 0])
            self.wfile.flush()
            self.release.wait(10)
        elif behaviour == "endless":
            for _ in range(50):
                self.wfile.write(bytes(1 << 20))
            self.log.append(("all of 50 MB were taken", None))
        elif behaviour == "drip":
            while not self.release.wait(0.02):
                self.wfile.write(b"x")
        else:
            self.wfile.write(body[:100_000] if behaviour == "truncate" else body)


@pytest.fixture
def server():
    Handler.log, Handler.release = [], threading.Event()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, args=(0.01,)).start()
        yield f"http://127.0.0.1:{running.server_port}/"
        Handler.release.set()
        running.shutdown()


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(cifar10, "TIMEOUT", 0.3)
    monkeypatch.setattr(cifar10, "PAUSE", 0.01)


def get(server, target, *behaviours):
    urls = [behaviour if "://" in behaviour else server + behaviour for behaviour in behaviours]
    return fetch(urls, target, size=len(CONTENT), md5=MD5)


@pytest.fixture
def target(tmp_path):
    (tmp_path / "data").mkdir()
    return tmp_path / "data" / "file.tar.gz"


def part_of(target):
    return target.with_name(target.name + ".part")


@pytest.mark.parametrize("behaviour", ["good", "no-range", "no-length", "truncate", "stall-once", "busy-twice"])
def test_one_mirror_is_enough_when_it_works_in_the_end(server, target, behaviour):
    assert get(server, target, behaviour).read_bytes() == CONTENT
    assert [path.name for path in target.parent.iterdir()] == [target.name]


def test_what_was_broken_off_goes_on_where_it_ended_and_what_is_complete_needs_no_network(server, target):
    get(server, target, "truncate")
    assert Handler.log == [("truncate", None), ("truncate", "bytes=100000-"), ("truncate", "bytes=200000-")]
    target.unlink()
    part_of(target).write_bytes(CONTENT[:123_456])
    assert get(server, target, "good").read_bytes() == CONTENT
    assert Handler.log[3:] == [("good", "bytes=123456-")]
    target.rename(part_of(target))
    assert get("http://127.0.0.1:1/", target, "nobody").read_bytes() == CONTENT
    target.unlink()
    assert get(server, target, "stall", "good").read_bytes() == CONTENT
    assert Handler.log[-1] == ("good", "bytes=50000-")


@pytest.mark.parametrize("bad", ["missing", "always-busy", "wrong", "login-page", "other-file", "drip", "endless"])
def test_a_bad_mirror_is_left_for_the_next(server, target, bad):
    assert get(server, target, bad, "good").read_bytes() == CONTENT
    assert {seen for seen, _ in Handler.log} == {bad, "good"}


@pytest.mark.parametrize("size", [1000, len(CONTENT), len(CONTENT) + 1])
@pytest.mark.parametrize("behaviour", ["good", "no-range"])
def test_a_part_with_wrong_bytes_does_not_condemn_the_mirror(server, target, size, behaviour):
    part_of(target).write_bytes(b"?" * size)
    assert get(server, target, behaviour).read_bytes() == CONTENT


@pytest.mark.parametrize("bad", ["missing", "login-page", "other-file"])
def test_a_mirror_with_another_file_does_not_spoil_the_part(server, target, bad):
    part_of(target).write_bytes(CONTENT[:200_000])
    with pytest.raises(OSError, match="could not be downloaded"):
        get(server, target, bad)
    assert part_of(target).read_bytes() == CONTENT[:200_000]


def test_when_all_fail_the_error_says_what_each_did(server, target):
    with pytest.raises(OSError, match="could not be downloaded") as caught:
        get(server, target, "missing", "wrong", "stall", "drip", "http://127.0.0.1:1/nobody")
    lines = str(caught.value).splitlines()[1:]
    for line, reason in zip(lines, ["404", "MD5", "timed out", "bytes per second", "no connection"], strict=True):
        assert reason in line
    assert not target.exists()


def test_a_full_disk_is_not_blamed_on_the_mirrors(server, target, monkeypatch):
    monkeypatch.setattr(cifar10, "_append", Mock(side_effect=OSError(errno.ENOSPC, "No space left on device")))
    with pytest.raises(OSError, match=r"^\[Errno 28\] No space left"):
        get(server, target, "good", "good")


def test_a_connection_that_breaks_in_the_middle_is_taken_up_again(server, target, monkeypatch):
    append, broken = cifar10._append, iter([ssl.SSLEOFError(8, "EOF occurred"), OSError(113, "No route to host")])

    def fragile(*arguments):
        append(*arguments)
        for error in broken:
            raise error

    monkeypatch.setattr(cifar10, "_append", fragile)
    assert get(server, target, "truncate").read_bytes() == CONTENT
    assert Handler.log[-1] == ("truncate", "bytes=200000-")


def test_a_stall_is_tried_three_times_more(server, target):
    with pytest.raises(OSError, match="could not be downloaded"):
        get(server, target, "stall")
    assert len(Handler.log) == 4  # one that brought something, then three that did not


def test_cifar10s_sums_are_those_that_torchvision_has():
    assert cifar10.ARCHIVE["md5"] == CIFAR10.tgz_md5 and cifar10.MIRRORS[-1] == CIFAR10.url
    assert (CIFAR10.base_folder, CIFAR10.filename) == cifar10.OFFICIAL
