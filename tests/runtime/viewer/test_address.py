import socket
import ssl

import pytest

from edgeseg.errors import InputError
from edgeseg.runtime.viewer import Serving, listen
from edgeseg.runtime.viewer.address import tls_context

TOKEN = "a-token-of-some-length"


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("8080", "127.0.0.1", 8080),
        ("localhost:81", "localhost", 81),
        ("0.0.0.0:8080", "0.0.0.0", 8080),
        ("[::1]:9000", "::1", 9000),
    ],
)
def test_parse_reads_host_and_port(text, host, port):
    serving = Serving.parse(text)
    assert (serving.host, serving.port) == (host, port)


@pytest.mark.parametrize("text", ["", "x", ":8080", "host:", "1:2:3", "::1:80", "-1", "8080x", "70000", "٣٣"])
def test_parse_refuses_what_is_no_address(text):
    with pytest.raises(InputError, match="--serve"):
        Serving.parse(text)


@pytest.mark.parametrize(
    ("token", "words"), [("short", "8 to 256"), ("with a space", "without spaces"), ("ä" * 9, "ASCII")]
)
def test_token_is_refused_when_it_is_short_or_cannot_be_sent(token, words):
    with pytest.raises(InputError, match=words):
        Serving(0, token=token)


def test_token_is_not_shown_when_the_options_are_printed():
    assert TOKEN not in repr(Serving(0, token=TOKEN))


def test_token_file_gives_its_first_line(tmp_path):
    (tmp_path / "token").write_text(f"{TOKEN}\nnot this\n")
    assert Serving.parse("0", token_file=tmp_path / "token").token == TOKEN


def test_token_file_is_refused_when_it_is_missing_or_beside_a_token(tmp_path):
    with pytest.raises(InputError, match=r"--token-file .* cannot be read"):
        Serving.parse("0", token_file=tmp_path / "none")
    with pytest.raises(InputError, match="contradict each other"):
        Serving.parse("0", token=TOKEN, token_file=tmp_path / "none")


def test_listen_refuses_other_addresses_than_loopback_without_a_token():
    with pytest.raises(InputError, match="shows the camera to the network"):
        listen(Serving(0, "0.0.0.0"))


def test_listen_opens_another_address_with_a_token():
    listener = listen(Serving(0, "0.0.0.0", token=TOKEN))
    assert (listener.is_loopback, listener.url) == (False, f"http://0.0.0.0:{listener.port}/")
    listener.close()


def test_listen_says_that_the_port_is_in_use():
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(InputError, match="another program has it"):
        listen(Serving(taken.getsockname()[1]))


@pytest.mark.parametrize(
    ("host", "words"), [("192.0.2.7", "no interface of this machine"), ("no such host", "cannot be found")]
)
def test_listen_says_what_is_wrong_with_the_host(host, words):
    with pytest.raises(InputError, match=words):
        listen(Serving(0, host, token=TOKEN))


def test_certificate_and_key_go_together(tmp_path):
    with pytest.raises(InputError, match="go together"):
        Serving(0, tls_cert=tmp_path / "cert.pem")


def test_listen_says_which_file_of_the_certificate_is_missing_or_no_pem(tmp_path):
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    with pytest.raises(InputError, match=r"--tls-cert .*cert\.pem cannot be read"):
        listen(Serving(0, tls_cert=cert, tls_key=key))
    cert.write_text("nothing")
    key.write_text("nothing")
    with pytest.raises(InputError, match="expected a PEM certificate"):
        listen(Serving(0, tls_cert=cert, tls_key=key))


def test_listen_does_not_ask_for_the_password_of_a_key(make_certificate):
    cert, key = make_certificate(password=b"secret")
    with pytest.raises(InputError, match="without a password"):
        listen(Serving(0, tls_cert=cert, tls_key=key))


def test_listen_takes_a_certificate_with_its_key(make_certificate):
    cert, key = make_certificate()
    listener = listen(Serving(0, tls_cert=cert, tls_key=key))
    assert listener.url.startswith("https://127.0.0.1:")
    assert tls_context(cert, key).minimum_version == ssl.TLSVersion.TLSv1_2
    listener.close()
