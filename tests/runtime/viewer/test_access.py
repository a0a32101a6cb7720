import pytest

from edgeseg.runtime.viewer.access import Access

TOKEN = "a-token-of-some-length"


def status(access, path="/", host="localhost:8080", cookies=None, query=None, **headers):
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    hosts = [host] if isinstance(host, str) else host
    found = access.refusal(path=path, hosts=hosts, headers=named, cookies=cookies or {}, query=query or {})
    return None if found is None else found.status


@pytest.fixture
def local():
    return Access(None, 8080)


@pytest.fixture
def remote():
    return Access(TOKEN, 8080)


@pytest.mark.parametrize("host", ["localhost", "localhost:8080", "127.0.0.1:8080", "[::1]:8080", "LOCALHOST:1"])
def test_loopback_is_served_by_its_names(local, host):
    assert status(local, host=host) is None


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example:8080", "127.0.0.1.evil", "10.0.0.7:8080"])
def test_another_name_that_points_at_loopback_is_refused(local, host):
    assert status(local, host=host) == 421


@pytest.mark.parametrize("host", [[], ["localhost"] * 2, "", "local host", "localhost:x", "a@localhost", "[::1"])
def test_a_request_without_one_plain_host_is_refused(local, host):
    assert status(local, host=host) == 400


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://localhost:9999", "http://localhost", ""])
def test_other_origins_are_refused(local, origin):
    assert status(local, path="/layers", Origin=origin) == 403


@pytest.mark.parametrize("origin", ["http://localhost:8080", "https://localhost:8080"])
def test_the_pages_own_origin_is_served(local, origin):
    assert status(local, path="/layers", Origin=origin) is None


@pytest.mark.parametrize("site", ["cross-site", "same-site", "anything"])
def test_what_a_browser_fetches_for_another_site_is_refused(local, site):
    assert status(local, path="/snapshot.png", Sec_Fetch_Site=site, Sec_Fetch_Mode="no-cors") == 403
    assert status(local, path="/snapshot.png", Sec_Fetch_Site=site, Sec_Fetch_Mode="navigate") == 403


def test_a_link_on_another_site_opens_the_page(local):
    assert status(local, path="/", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate") is None


@pytest.mark.parametrize("text", ["", TOKEN[:-1], TOKEN + "x", TOKEN.upper(), "ä" * 22, "\ud800"])
def test_a_wrong_token_is_refused(remote, text):
    assert status(remote, query={"token": text}) == 401
    assert status(remote, Authorization=f"Bearer {text}") == 401
    assert status(remote, cookies={remote.cookie_name: text}) == 401


def test_the_token_is_taken_as_bearer_query_or_cookie(remote):
    assert status(remote, Authorization=f"Bearer {TOKEN}") is None
    assert status(remote, query={"token": TOKEN}) is None
    assert status(remote, cookies={remote.cookie_name: remote.cookie}) is None


def test_the_cookie_does_not_hold_the_token_and_is_no_token(remote):
    assert TOKEN not in remote.cookie
    assert status(remote, query={"token": remote.cookie}) == 401


def test_a_wrong_bearer_is_refused_beside_a_right_cookie(remote):
    assert status(remote, cookies={remote.cookie_name: remote.cookie}, Authorization="Bearer wrong-token") == 401
    assert status(remote, cookies={remote.cookie_name: remote.cookie}, Authorization="Basic abc") == 401


def test_any_name_is_served_with_the_token_and_none_without(remote):
    assert status(remote, host="camera-7.factory.example", query={"token": TOKEN}) is None
    assert status(remote, host="camera-7.factory.example") == 401
