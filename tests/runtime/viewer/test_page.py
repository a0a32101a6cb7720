"""The page in a real browser: what it shows, what its controls do, and what it asks the network for."""

import base64
import json
from dataclasses import replace

import cv2
import numpy as np
import pytest

from edgeseg.runtime.overlay import overlay
from support.browser import chromium_page

TOKEN = "a-token-of-some-length"
PIXELS = "document.getElementById('view').toDataURL('image/png').split(',')[1]"
DRAWN = "!['', '–'].includes(document.getElementById('frame-index')?.textContent ?? '')"
LIVE = "document.getElementById('link')?.dataset.state === 'live'"


def pixels(page):
    data = np.frombuffer(base64.b64decode(page.value(PIXELS)), np.uint8)
    return cv2.cvtColor(cv2.imdecode(data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB).astype(int)


def expected(view, classes, **options):
    result = view.newest
    return overlay(result.frame_rgb, result.labels, classes, **options).astype(int)


def text(page, name):
    return page.value(f"document.getElementById('{name}').textContent")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    with chromium_page(tmp_path_factory.mktemp("chromium")) as page:
        page.size(1200, 800)
        yield page


def open_anew(page, url):
    """Leave the page before, which may still look for a view that has ended, and open another."""
    page.open("about:blank")
    page.until("location.href === 'about:blank'")
    page.complaints.clear()
    page.requested.clear()
    page.open(url)


@pytest.fixture
def shown(page, view):
    """The page with its first picture."""
    view.give(2)
    open_anew(page, view.viewer.url)
    page.until(DRAWN)
    return page


def alike(a, b):
    """Pictures that differ by no more than JPEG does."""
    return a.shape == b.shape and np.percentile(np.abs(a - b), 90) <= 12


def test_page_shows_the_overlay_and_asks_no_other_host(shown, view, graphs):
    assert alike(pixels(shown), expected(view, graphs.classes, opacity=0.55))
    assert shown.complaints == []
    assert shown.requested
    assert {url.split("/")[2] for url in shown.requested} == {f"127.0.0.1:{view.port}"}


def test_classes_are_toggled_one_by_one_and_all_together(shown, view, graphs):
    frame = view.newest.frame_rgb.astype(int)
    plain = expected(view, graphs.classes, opacity=0.55)
    shown.value("document.querySelector('#legend input[data-value=\"1\"]').click()")
    without_green = plain.copy()
    without_green[:, 16:32] = frame[:, 16:32]
    assert alike(pixels(shown), without_green)
    shown.value("document.getElementById('none').click()")
    assert alike(pixels(shown), frame)
    shown.value("document.getElementById('all').click()")
    assert alike(pixels(shown), plain)
    shown.until("document.getElementById('legend').textContent === 'red33 %green33 %blue33 %'")


def test_opacity_slider_changes_the_picture(shown, view, graphs):
    for percent in (0, 100):
        shown.value(
            f"(() => {{ const slider = document.getElementById('opacity'); slider.value = {percent};"
            " slider.dispatchEvent(new Event('input')); })()"
        )
        assert alike(pixels(shown), expected(view, graphs.classes, opacity=percent / 100))


def test_split_view_shows_the_camera_to_the_right_and_moves_by_pointer_and_keys(shown, view, graphs):
    frame = view.newest.frame_rgb.astype(int)
    both = expected(view, graphs.classes, opacity=0.55)
    shown.value("document.getElementById('split').click()")
    both[:, 24:] = frame[:, 24:]
    assert alike(pixels(shown), both)
    box = json.loads(shown.value("JSON.stringify(document.getElementById('divider').getBoundingClientRect())"))
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    where = "Number(document.getElementById('divider').getAttribute('aria-valuenow'))"
    for kind, at in (("mousePressed", x), ("mouseMoved", x - 60), ("mouseReleased", x - 60)):
        shown.call("Input.dispatchMouseEvent", type=kind, x=at, y=y, button="left", buttons=1, clickCount=1)
    shown.until(f"{where} < 50")
    dragged = shown.value(where)
    shown.value("document.getElementById('divider').dispatchEvent(new KeyboardEvent('keydown', {key: 'ArrowRight'}))")
    assert shown.value(where) == dragged + 2


def test_page_tells_the_figures_and_follows_new_results(shown, view):
    assert text(shown, "source") == "rtsp://camera/1, 10.0 frames/s"
    shown.until("document.getElementById('configuration').textContent === 'plain_32x48'")
    assert text(shown, "compensation") == "none"
    before = pixels(shown)
    view.give(40)
    shown.until("document.getElementById('frame-index').textContent === '41'")
    assert (pixels(shown) != before).any()
    assert text(shown, "dropped") == "0"
    filled = "document.getElementById('plot').getContext('2d').getImageData(0, 0, 320, 120).data.some((x) => x)"
    assert shown.value(filled)


def test_page_says_that_no_labels_come_and_that_the_connection_is_lost(shown, view):
    shown.until("document.getElementById('link').dataset.state === 'stale'")
    assert text(shown, "notice").startswith("no new labels for")
    view.give()
    shown.until(LIVE)
    view.viewer.close()
    shown.until("document.getElementById('link').dataset.state === 'lost'")
    assert text(shown, "notice") == "connection lost: trying again"


def test_page_says_that_old_labels_are_shown_anew(shown, view):
    shown.until("document.getElementById('link').dataset.state === 'stale'")
    view.viewer.show(replace(view.newest, frame_index=77))
    shown.until("document.getElementById('frame-index').textContent === '77'")
    assert text(shown, "link").startswith("no new labels for")


def test_paused_page_stands_still_until_it_goes_on(shown, view):
    shown.until("document.getElementById('frame-index').textContent === '1'")
    shown.value("document.getElementById('pause').click()")
    before = pixels(shown)
    view.give(30)
    assert text(shown, "link") == "paused"
    assert np.array_equal(pixels(shown), before)
    shown.value("document.getElementById('pause').click()")
    view.give()
    shown.until("document.getElementById('frame-index').textContent === '32'")


def test_page_opens_with_the_token_and_works_with_its_cookie(page, make_view):
    with make_view(token=TOKEN) as view:
        view.give()
        open_anew(page, f"{view.viewer.url}?token={TOKEN}")
        page.until(DRAWN)
        assert page.value("location.href") == view.viewer.url
        assert page.complaints == []
