"""Real HTTP against the real server of a real loop."""

import asyncio
import json
import ssl
import struct
import urllib.request
from dataclasses import replace

import aiohttp
import cv2
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from edgeseg.errors import InputError
from edgeseg.runtime.loop_session import SessionEvent
from edgeseg.runtime.overlay import overlay
from edgeseg.runtime.source import SourceCounts
from edgeseg.runtime.viewer import Serving, Viewer
from support.waiting import until

TOKEN = "a-token-of-some-length"
SECURITY = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Server": "edgeseg",
}


def decoded(data):
    return cv2.cvtColor(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def metrics_of(view):
    families = text_string_to_metric_families(view.get("/metrics").body.decode())
    return {sample.name: sample for family in families for sample in family.samples}


@pytest.mark.parametrize(
    ("path", "kind"),
    [("/", "text/html"), ("/live.js", "text/javascript"), ("/plots.js", "text/javascript"), ("/live.css", "text/css"),
     ("/icon.svg", "image/svg+xml"), ("/healthz", "application/json"), ("/nothing", "text/plain")],
)  # fmt: skip
def test_every_answer_forbids_scripts_and_readers_of_other_origins(view, path, kind):
    answer = view.get(path)
    assert answer.headers.get_content_type() == kind
    assert {name: answer.headers[name] for name in SECURITY} == SECURITY
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'; script-src 'self'; style-src 'self'" in policy
    assert "unsafe" not in policy
    assert not [name for name in answer.headers if name.lower().startswith("access-control")]


def test_the_page_names_no_other_host_and_has_nothing_inline(view):
    page = view.get("/").body.decode()
    assert "<script>" not in page
    assert "style=" not in page
    assert "onclick=" not in page
    for path in ("/", "/live.js", "/plots.js", "/live.css"):
        assert "//" not in view.get(path).body.decode().replace("// ", "").replace("}://${location.host}", "")


@pytest.mark.parametrize(
    "path",
    ["/../server.py", "/..%2fserver.py", "/%2e%2e/%2e%2e/etc/passwd", "//etc/passwd", "/page/index.html", "/live.js/",
     "/live.js%00.css", "/./live.js/../../server.py", "/live.css..", "/\\..\\server.py"],
)  # fmt: skip
def test_paths_lead_to_nothing_but_what_is_served(view, path):
    assert view.get(path).status in (400, 404)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"])
def test_other_methods_are_refused(view, method):
    assert view.get("/", method=method).status == 405


def test_bodies_and_long_heads_are_refused(view):
    assert view.get("/", body=b"x" * 100).status == 413
    assert view.get("/", Cookie="a" * 9000).status == 400
    assert view.get("/?" + "a" * 9000).status in (400, 414)


def test_other_hosts_and_origins_are_refused_over_http_too(view):
    assert view.get("/", Host="evil.example").status == 421
    assert view.get("/snapshot.png", Origin="http://evil.example").status == 403


def test_health_is_ok_with_results_and_503_before_them_and_when_none_comes(make_view):
    with make_view(stale_s=1.0) as view:
        assert view.get("/healthz").status == 503
        view.give()
        answer = view.get("/healthz")
        health = json.loads(answer.body)
        assert (answer.status, health["status"], health["results"]) == (200, "ok", 1)
        until(lambda: view.get("/healthz").status == 503)
        assert json.loads(view.get("/healthz").body)["status"] == "stale"
        view.give()
        assert view.get("/healthz").status == 200


def test_metrics_are_those_of_the_loop(view):
    view.give(3)
    samples = metrics_of(view)
    assert samples["edgeseg_results_total"].value == 3
    assert samples["edgeseg_frames_captured_total"].value == 3
    assert samples["edgeseg_frames_dropped_total"].value == 0
    for name in ("seconds_since_result", "seconds_since_new_labels", "source_age_seconds"):
        assert 0 <= samples[f"edgeseg_{name}"].value < 10
    assert samples["edgeseg_step_seconds_count"].value == samples["edgeseg_age_seconds_bucket"].value == 3
    assert samples["edgeseg_step_seconds_sum"].value > 0
    assert samples["edgeseg_loop_info"].labels["configuration"] == "plain_32x48"


def test_metrics_tell_all_counts_and_whether_the_camera_is_lost(view):
    view.give()
    samples = metrics_of(view)
    counts = {name for name in view.loop.counts if name != "results"}
    assert {name: samples[f"edgeseg_{name}_total"].value for name in counts} == dict.fromkeys(counts, 0.0) | {
        "frames_captured": 1.0
    }
    assert samples["edgeseg_source_up"].value == 1
    view.source.is_lost, view.source.counts = True, SourceCounts(reconnects=2, stalls=3, corrupt=4)
    until(lambda: metrics_of(view)["edgeseg_source_up"].value == 0)
    samples = metrics_of(view)
    told = [samples[f"edgeseg_{name}_total"].value for name in ("reconnects", "stalls", "corrupt_frames")]
    assert told == [2, 3, 4]


def test_metrics_count_the_changes_of_the_session_by_kind(view):
    def counted():
        families = text_string_to_metric_families(view.get("/metrics").body.decode())
        (family,) = [family for family in families if family.name == "edgeseg_session_events"]
        return {sample.labels["kind"]: sample.value for sample in family.samples}

    before = counted()
    assert before.keys() == {"switched", "restarted", "reset", "left out"}
    view.loop.session.events.add(SessionEvent(1.0, "switched", "small", "load"))
    until(lambda: counted() == before | {"switched": before["switched"] + 1})


def test_the_password_of_a_camera_is_not_told(view):
    view.give()
    assert metrics_of(view)["edgeseg_loop_info"].labels["source"] == "rtsp://camera/1"


def test_snapshot_is_the_overlay_pixel_for_pixel(view, graphs):
    assert view.get("/snapshot.png").status == 503
    view.give(2)
    result = view.newest
    answer = view.get("/snapshot.png")
    assert answer.headers["Content-Type"] == "image/png"
    assert np.array_equal(decoded(answer.body), overlay(result.frame_rgb, result.labels, graphs.classes))


def test_stream_sends_each_new_result_as_a_picture(view, graphs):
    view.give()
    with urllib.request.urlopen(f"http://127.0.0.1:{view.port}/stream.mjpg", timeout=20) as stream:
        assert stream.headers["Content-Type"] == "multipart/x-mixed-replace; boundary=edgeseg-frame"
        for _ in range(3):
            result = view.newest
            shown = overlay(result.frame_rgb, result.labels, graphs.classes)
            assert stream.readline() == b"--edgeseg-frame\r\n"
            assert stream.readline() == b"Content-Type: image/jpeg\r\n"
            length = int(stream.readline().removeprefix(b"Content-Length: "))
            assert stream.readline() == b"\r\n"
            difference = np.abs(decoded(stream.read(length)).astype(int) - shown)
            assert np.median(difference) <= 3
            assert stream.readline() == b"\r\n"
            view.give()


async def layers_of(view, pictures, between=lambda: None, **options):
    """What the page is told first, then so many pictures as (state, frame, labels)."""
    got = []
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(f"http://127.0.0.1:{view.port}/layers", **options) as socket,
    ):
        about = json.loads(await socket.receive_str(timeout=20))
        for _ in range(pictures):
            await socket.send_str("next")
            data = await socket.receive_bytes(timeout=20)
            lengths = struct.unpack("<3I", data[:12])
            frame_at, mask_at, end = (12 + sum(lengths[:parts]) for parts in (1, 2, 3))
            assert end == len(data)
            state, frame, mask = data[12:frame_at], data[frame_at:mask_at], data[mask_at:]
            labels = cv2.imdecode(np.frombuffer(mask, np.uint8), cv2.IMREAD_UNCHANGED)
            got.append((json.loads(state), decoded(frame), labels))
            between()
    return about, got


def test_page_is_given_the_frame_and_the_exact_labels(view):
    view.give(2)
    result = view.newest
    about, [(state, frame_rgb, labels)] = asyncio.run(layers_of(view, 1))
    assert [entry["name"] for entry in about["classes"]] == ["red", "green", "blue"]
    assert (about["source"], about["source_fps"]) == ("rtsp://camera/1", 10.0)
    assert (about["compensation"], about["expected_fps"]) == ("none", None)
    assert (state["number"], state["configuration"], state["counts"]["frames_captured"]) == (2, "plain_32x48", 2)
    assert np.array_equal(labels, result.labels)
    assert np.median(np.abs(frame_rgb.astype(int) - result.frame_rgb)) <= 3


def test_page_gets_each_result_once(view):
    view.give()
    _, pictures = asyncio.run(layers_of(view, 3, between=view.give))
    assert [state["number"] for state, _, _ in pictures] == [1, 2, 3]


def test_socket_is_refused_to_other_origins(view):
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        asyncio.run(layers_of(view, 0, origin="http://evil.example"))
    assert refused.value.status == 403


def test_large_frames_are_shrunk_for_the_page_and_not_for_the_snapshot(view):
    view.give()
    result = view.newest
    large = np.repeat(np.repeat(result.frame_rgb, 40, axis=0), 40, axis=1)
    view.viewer.show(replace(result, frame_rgb=large))
    _, [(_, frame_rgb, labels)] = asyncio.run(layers_of(view, 1))
    assert (frame_rgb.shape, labels.shape) == ((853, 1280, 3), (32, 48))
    assert decoded(view.get("/snapshot.png").body).shape == (1280, 1920, 3)


def test_nothing_is_served_without_the_token(make_view):
    with make_view(token=TOKEN) as view:
        view.give()
        for path in ("/", "/live.js", "/snapshot.png", "/stream.mjpg", "/healthz", "/metrics", "/layers", "/nothing"):
            answer = view.get(path)
            assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
            assert view.get(f"{path}?token=wrong-token").status == 401
        assert view.get("/snapshot.png", Authorization=f"Bearer {TOKEN}").status == 200


def test_token_in_the_address_becomes_a_cookie(make_view):
    with make_view(token=TOKEN) as view:
        answer = view.get(f"/?token={TOKEN}")
        assert (answer.status, answer.headers["Location"]) == (303, "/")
        cookie = answer.headers["Set-Cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=Lax" in cookie
        assert TOKEN not in cookie
        assert view.get("/", Cookie=cookie.partition(";")[0]).status == 200


def test_token_and_pictures_go_over_tls(make_view, make_certificate):
    cert, key = make_certificate()
    context = ssl.create_default_context(cafile=cert)
    with make_view(token=TOKEN, cert=cert, key=key) as view:
        view.give()
        request = urllib.request.Request(
            f"https://localhost:{view.port}/snapshot.png", headers={"Authorization": f"Bearer {TOKEN}"}
        )
        with urllib.request.urlopen(request, timeout=20, context=context) as answer:
            assert decoded(answer.read()).shape == (32, 48, 3)


def test_a_view_without_a_loop_says_that_it_starts_and_shows_the_one_that_comes(make_view, graphs):
    with make_view(later=True, stale_s=0.01) as view:
        assert view.viewer.wait_until_serving(20)
        answer = view.get("/healthz")
        assert (answer.status, json.loads(answer.body)["status"]) == (503, "starting")
        assert [view.get(path).status for path in ("/", "/snapshot.png", "/metrics", "/layers")] == [200, 503, 503, 503]
        view.viewer.follow(view.loop)
        view.give()
        about, [(state, _, labels)] = asyncio.run(layers_of(view, 1))
        assert [entry["name"] for entry in about["classes"]] == list(graphs.classes.names)
        assert (about["source"], state["number"], labels.shape) == ("rtsp://camera/1", 1, (32, 48))
        with pytest.raises(InputError, match="shows one loop"):
            view.viewer.follow(view.loop)


def test_a_view_without_a_loop_needs_classes():
    with pytest.raises(InputError, match="got neither"):
        Viewer(None, Serving(0))


@pytest.mark.parametrize("options", [{"fps_max": 0}, {"stale_s": -1}])
def test_viewer_refuses_a_rate_or_time_that_is_not_positive(view, options):
    with pytest.raises(InputError, match="are positive"):
        Viewer(view.loop, Serving(0), **options)
