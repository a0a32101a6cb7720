"""Where the live view listens, who may read it, and how it is encrypted; what is wrong is said before anything runs."""

import contextlib
import errno
import ipaddress
import socket
import ssl
from dataclasses import dataclass, field
from pathlib import Path

from edgeseg.errors import InputError

LOOPBACK = "127.0.0.1"
TOKEN_LENGTHS = range(8, 257)
BACKLOG = 64


@dataclass(frozen=True)
class Serving:
    """What the options `--serve`, `--token`, `--tls-cert` and `--tls-key` say."""

    port: int
    """0: one that is free."""
    host: str = LOOPBACK
    """Name or address of an interface of this machine."""
    token: str | None = field(default=None, repr=False)
    """What a viewer has to know; needed for any address but loopback."""
    tls_cert: Path | None = None
    """Certificate chain, PEM."""
    tls_key: Path | None = None
    """Its private key, PEM, without a password."""

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise InputError(f"--serve: a port is a number from 0 to 65535 | got {self.port}")
        if self.token is not None:
            if len(self.token) not in TOKEN_LENGTHS:
                raise InputError(
                    f"--token has {TOKEN_LENGTHS[0]} to {TOKEN_LENGTHS[-1]} characters | got {len(self.token)}: make "
                    "one with python3 -c 'import secrets; print(secrets.token_urlsafe())'"
                )
            if not all("!" <= character <= "~" for character in self.token):
                raise InputError("--token is printable ASCII without spaces | got something else")
        if (self.tls_cert is None) != (self.tls_key is None):
            raise InputError("--tls-cert and --tls-key go together | give both, or neither")

    @classmethod
    def parse(
        cls,
        text: str,
        *,
        token: str | None = None,
        token_file: Path | str | None = None,
        tls_cert: Path | str | None = None,
        tls_key: Path | str | None = None,
    ) -> "Serving":
        """`[HOST:]PORT`, an IPv6 address in brackets; the token from its file where that is given.

        Raises:
            InputError: another form, two tokens, or a token file that is not readable.
        """
        if token is not None and token_file is not None:
            raise InputError("--token and --token-file contradict each other | give one")
        host, _, port = text.rpartition(":")
        if text.startswith(":") or not port.isdecimal() or not port.isascii() or (":" in host and host[0] != "["):
            raise InputError(f"--serve is [HOST:]PORT, such as 8080, 0.0.0.0:8080 or [::1]:8080 | got {text!r}")
        if token_file is not None:
            token = _first_line(Path(token_file))
        return cls(
            int(port),
            host.strip("[]") or LOOPBACK,
            token,
            None if tls_cert is None else Path(tls_cert),
            None if tls_key is None else Path(tls_key),
        )


@dataclass(frozen=True)
class Listener:
    """An open port, and what a viewer needs to get in."""

    sock: socket.socket
    tls_cert: Path | None
    """Certificate chain, PEM, that has been tried with its key; None: unencrypted."""
    tls_key: Path | None
    token: str | None = field(repr=False)
    is_loopback: bool

    @property
    def port(self) -> int:
        """The port that it is, also where the system chose it."""
        return int(self.sock.getsockname()[1])

    @property
    def url(self) -> str:
        """Address of the page, without the token."""
        host = str(self.sock.getsockname()[0])
        shown = f"[{host}]" if ":" in host else host
        return f"{'http' if self.tls_cert is None else 'https'}://{shown}:{self.port}/"

    def close(self) -> None:
        """Close the port, also where another process still has it."""
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()


def listen(serving: Serving) -> Listener:
    """Open the port.

    Raises:
        InputError: the address is not loopback and there is no token; certificate or key are missing or do not go
            together; the host is unknown or not this machine's; the port is in use or needs privileges.
    """
    try:
        found = socket.getaddrinfo(serving.host, serving.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise InputError(
            f"--serve: {serving.host} cannot be found ({error}) | name an address of this machine"
        ) from error
    family, _, _, _, address = found[0]
    is_loopback = ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback
    if not is_loopback and serving.token is None:
        raise InputError(
            f"--serve {serving.host}:{serving.port} shows the camera to the network | give --token or --token-file, or "
            f"serve on this machine alone: --serve {serving.port}"
        )
    tls_context(serving.tls_cert, serving.tls_key)
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        advice = {
            errno.EADDRINUSE: "another program has it: choose another port",
            errno.EACCES: "ports below 1024 need privileges: choose a higher one",
            errno.EADDRNOTAVAIL: "no interface of this machine has that address",
        }.get(error.errno or 0, "choose another address")
        raise InputError(
            f"--serve: {serving.host}:{serving.port} cannot be used ({error.strerror}) | {advice}"
        ) from error
    return Listener(sock, serving.tls_cert, serving.tls_key, serving.token, is_loopback)


def tls_context(cert: Path | None, key: Path | None) -> ssl.SSLContext | None:
    """What encrypts connections; None without a certificate.

    Raises:
        InputError: certificate or key are missing or do not go together.
    """
    if cert is None or key is None:
        return None
    for option, path in (("--tls-cert", cert), ("--tls-key", key)):
        try:
            path.open("rb").close()
        except OSError as error:
            raise InputError(f"{option} {path} cannot be read ({error.strerror}) | give a PEM file") from error
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        # Without an answer here OpenSSL would ask for a password on the terminal.
        context.load_cert_chain(cert, key, password=lambda: "")
    except (ssl.SSLError, OSError, ValueError) as error:
        raise InputError(
            f"--tls-cert {cert} and --tls-key {key} cannot be used ({error}) | expected a PEM certificate and its own "
            "key without a password"
        ) from error
    return context


def _first_line(path: Path) -> str:
    try:
        with path.open(encoding="ascii") as file:
            return file.readline(TOKEN_LENGTHS[-1] + 2).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--token-file {path} cannot be read ({error}) | its first line is the token") from error
