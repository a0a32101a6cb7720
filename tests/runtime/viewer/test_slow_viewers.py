"""Viewers that do not read, do not ask, ask too much, or are too many: the loop and the others do not notice."""

import asyncio
import socket
import threading
import time
from dataclasses import replace

import aiohttp
import numpy as np
import pytest

from edgeseg.runtime.viewer import Limits
from edgeseg.runtime.viewer import site as site_module
from support.waiting import until


def connected(view, request=b""):
    """A raw connection that has sent `request`, with hardly any room for an answer."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    sock.settimeout(20)
    sock.connect(("127.0.0.1", view.port))
    sock.sendall(request)
    return sock


def is_cut(sock):
    """Whether the server has ended the connection, once all that it sent is read."""
    try:
        while sock.recv(65536):
            pass
    except (ConnectionResetError, BrokenPipeError):
        pass
    except TimeoutError:
        return False
    return True


def is_broken(sock, data):
    """Send something; whether the server has ended the connection."""
    try:
        sock.sendall(data)
    except OSError:
        return True
    return False


def get(path):
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


@pytest.fixture
def encoded(monkeypatch):
    """Numbers of the results that were encoded, per form."""
    numbers = {"layers": [], "overlay_jpeg": [], "overlay_png": []}
    for name, counted in numbers.items():
        real = getattr(site_module, name)

        def count(shown, *others, real=real, counted=counted):
            counted.append(shown.facts["frame_index"])
            return real(shown, *others)

        monkeypatch.setattr(site_module, name, count)
    return numbers


def test_nothing_is_encoded_when_nobody_looks(encoded, make_view):
    with make_view() as view:
        view.give(5)
        view.get("/metrics")
    assert encoded == {"layers": [], "overlay_jpeg": [], "overlay_png": []}


def test_a_result_is_encoded_once_for_all_viewers(encoded, make_view):
    async def watch(view):
        async with aiohttp.ClientSession() as session:
            sockets = [await session.ws_connect(f"http://127.0.0.1:{view.port}/layers") for _ in range(8)]
            for ws in sockets:
                await ws.receive_str(timeout=20)
                await ws.send_str("next")
            await asyncio.to_thread(view.give)
            return {await ws.receive_bytes(timeout=20) for ws in sockets}

    with make_view() as view:
        assert len(asyncio.run(watch(view))) == 1
    assert encoded["layers"] == [0]


def test_pictures_are_not_made_faster_than_told(encoded, make_view):
    with make_view(fps_max=2.0) as view, connected(view, get("/stream.mjpg")):
        view.give()
        until(lambda: encoded["overlay_jpeg"] == [0])
        view.give(30)
        until(lambda: len(encoded["overlay_jpeg"]) == 2)
    # The one of half a second later is the newest by then.
    assert encoded["overlay_jpeg"][1] > 1


def test_a_viewer_that_does_not_read_is_cut_and_the_loop_goes_on(make_view):
    noise = np.random.default_rng(0).integers(0, 255, (720, 1280, 3), np.uint8)
    with make_view(limits=Limits(read_s=0.3)) as view:
        view.give()
        result = view.newest
        with connected(view, get("/stream.mjpg")) as sock:
            stop = threading.Event()

            def show():
                while not stop.is_set():
                    view.viewer.show(replace(result, frame_rgb=noise))
                    stop.wait(0.02)

            thread = threading.Thread(target=show)
            thread.start()
            until(lambda: metric(view, "edgeseg_viewer_connections") == 1.0)
            stop.set()
            thread.join()
            assert is_cut(sock)
        view.give(3)


def metric(view, name):
    lines = view.get("/metrics").body.decode().splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith(name + " ")))


def test_a_slow_reader_of_a_snapshot_is_cut(make_view):
    noise = np.random.default_rng(0).integers(0, 255, (1080, 1920, 3), np.uint8)
    with make_view(limits=Limits(read_s=0.3)) as view:
        view.give()
        view.viewer.show(replace(view.newest, frame_rgb=noise))
        with connected(view, get("/snapshot.png")) as sock:
            until(lambda: metric(view, "edgeseg_viewer_connections") == 1.0)
            assert is_cut(sock)


@pytest.mark.parametrize("begun", [b"", b"GET / HTTP/1.1\r\nHost: lo", get("/healthz")])
def test_a_connection_without_a_whole_request_is_cut_in_time(make_view, begun):
    with make_view(limits=Limits(head_s=0.3)) as view, connected(view, begun) as sock:
        began = time.monotonic()
        assert is_cut(sock)
        assert time.monotonic() - began < 15


def test_a_request_that_drips_in_is_cut_in_time(make_view):
    with make_view(limits=Limits(head_s=0.5)) as view, connected(view, b"GET / HTTP/1.1\r\n") as sock:
        until(lambda: is_broken(sock, b"X-Drip: 1\r\n"))


def test_a_viewer_that_keeps_sending_is_cut(make_view):
    with make_view() as view, connected(view, get("/stream.mjpg")) as sock:
        until(lambda: is_broken(sock, b"x" * 1024))


def test_connections_beyond_the_limit_are_refused_and_taken_again(make_view):
    with make_view(limits=Limits(connections=3)) as view:
        held = [connected(view, get("/healthz")) for _ in range(3)]
        for sock in held:
            assert sock.recv(9) == b"HTTP/1.1 "
        with connected(view) as sock:
            assert sock.recv(100).startswith(b"HTTP/1.1 503")
        for sock in held:
            sock.close()
        until(lambda: answers(view))


def answers(view):
    try:
        return view.get("/icon.svg").status == 200
    except OSError:
        return False


def test_requests_beyond_the_pace_wait(make_view):
    with make_view(limits=Limits(rate_per_s=20.0)) as view:
        began = time.monotonic()
        for _ in range(30):
            view.get("/icon.svg")
        # A second's worth goes at once; each is a connection and a request, which are paced alike.
        assert time.monotonic() - began >= 0.4


def test_closing_ends_everything_at_once_whoever_is_connected(make_view):
    with make_view() as view:
        view.give()
        held = [connected(view, get("/stream.mjpg")), connected(view), connected(view, b"GET / HT")]
        assert held[0].recv(9) == b"HTTP/1.1 "
        began = time.monotonic()
        view.viewer.close()
        assert time.monotonic() - began < 1.5
        assert not [thread.name for thread in threading.enumerate() if "viewer" in thread.name]
        assert all(is_cut(sock) for sock in held)
        with pytest.raises(ConnectionRefusedError):
            connected(view)
        view.viewer.close()


def test_showing_goes_on_when_the_server_has_ended(view):
    view.give()
    with connected(view, get("/stream.mjpg")) as sock:
        assert sock.recv(9) == b"HTTP/1.1 "
        view.viewer.close()
        view.give(2)
