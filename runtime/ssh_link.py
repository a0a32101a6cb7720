"""One script run on another machine by the system's `ssh`: bytes in, bytes out, and nothing goes on there without us.

The connection, its keys and its aliases are those of `ssh` and of the user's ~/.ssh/config; no password is ever asked
for. Standard input stays open as long as the script is wanted: at its end (Ctrl-C here, a connection that broke) the
script has to stop and tidy up, which no server does for it where there is no terminal.
"""

import itertools
import os
import re
import selectors
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import IO

from edgeseg.errors import DeviceError

SCHEME = "ssh://"
TIDY_UP_S = 15.0
"""How long the far side may take to stop and tidy up after Ctrl-C before the connection is given up."""

_ADDRESS = re.compile(
    r"ssh://(?:(?P<user>[A-Za-z0-9_][A-Za-z0-9_.+-]*)@)?"
    r"(?:(?P<host>[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?)|\[(?P<ip6>[0-9A-Fa-f:.]+(?:%[A-Za-z0-9_.-]+)?)\])"
    r"(?::(?P<port>[0-9]{1,5}))?(?:/(?P<device>[a-z][a-z0-9-]*(?::[a-z0-9]+)*)?)?"
)
_OPEN = "edgeseg-link-open"
"""What the script says first: all before it comes from the login shell's own files."""
_OPTIONS = (
    "ConnectTimeout=10",
    # A cable that was pulled is noticed within a minute.
    "ServerAliveInterval=15",
    "ServerAliveCountMax=3",
    "LogLevel=ERROR",
    "RequestTTY=no",
    "RemoteCommand=none",
    "ClearAllForwardings=yes",
    # A master connection that outlives this call would keep our pipes open.
    "ControlMaster=no",
)
_SSH_FAILED = 255


@dataclass(frozen=True)
class RemoteDevice:
    """A device of another machine: `ssh://[USER@]HOST[:PORT][/DEVICE]`."""

    host: str
    """Name, address, or an alias of ~/.ssh/config."""
    user: str | None = None
    port: int | None = None
    device: str = "cpu"
    """Device string there."""

    @classmethod
    def parse(cls, text: str) -> "RemoteDevice":
        """Read `ssh://me@orin:2222/tensorrt:0`; without user and port those of ~/.ssh/config, without device `cpu`.

        Raises:
            DeviceError: it is written otherwise.
        """
        if re.match(r"ssh://[^@/]*:[^@/]*@", text):
            raise DeviceError(
                f"no password belongs into {SCHEME}... | write ssh://USER@HOST: keys let you in (ssh-copy-id)"
            )
        match = _ADDRESS.fullmatch(text)
        port = int(match["port"]) if match and match["port"] else None
        if match is None or not (port is None or 0 < port < 1 << 16):
            raise DeviceError(
                "a device of another machine is written ssh://[USER@]HOST[:PORT][/DEVICE], such as "
                f"ssh://me@orin/cuda:0 | got {text!r}"
            )
        return cls(match["host"] or match["ip6"], match["user"], port, match["device"] or "cpu")

    @property
    def machine(self) -> str:
        """The address without the device, for messages."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return SCHEME + (f"{self.user}@" if self.user else "") + host + (f":{self.port}" if self.port else "")

    @property
    def ssh_words(self) -> list[str]:
        """Words of `ssh` that name the machine."""
        port = ["-p", str(self.port)] if self.port else []
        return [*port, *(["-l", self.user] if self.user else []), "--", self.host]

    def __str__(self) -> str:
        return f"{self.machine}/{self.device}"


@dataclass(frozen=True)
class Answer:
    """How a script ended on the far side."""

    status: int
    """Its exit status."""
    output: bytes
    """Its standard output."""


def run_there(
    remote: RemoteDevice,
    script: str,
    payload: Iterable[bytes],
    *,
    ssh_options: Sequence[str] = (),
    on_line: Callable[[str], None],
) -> Answer:
    """Run a POSIX shell script on the far side, whatever the login shell there is, with `payload` as standard input.

    Standard input ends when the connection does, or when this call is interrupted; otherwise not. The script has to
    watch for that, and to end then; it is waited for (`TIDY_UP_S`).

    Args:
        ssh_options: `KEY=VALUE` as in ssh_config, before the user's own.
        on_line: called with every line of the script's standard error.

    Raises:
        DeviceError: there is no `ssh` here, the machine cannot be reached or lets us not in, or the connection broke.
    """
    program = shutil.which("ssh")
    if program is None:
        raise DeviceError(f"{remote.machine} needs ssh, which is not installed here | install an OpenSSH client")
    text = f"echo {_OPEN}\n{script}".encode()
    # The script itself comes first on standard input: a csh or fish there sees nothing that it could misread.
    command = f"exec /bin/sh -c 'eval \"$(head -c {len(text)})\"'"
    options = ("BatchMode=yes", *ssh_options, *_OPTIONS)
    output = bytearray()
    last_lines: list[str] = []

    def heard(line: str) -> None:
        last_lines[:] = [*last_lines[-9:], line]
        if _OPEN.encode() in output:
            on_line(line)

    # ssh writes its own complaints to a file, so that they are not taken for the script's.
    with tempfile.NamedTemporaryFile(prefix="edgeseg-ssh-") as log:
        words = [program, "-T", "-E", log.name, *(word for each in options for word in ("-o", each))]
        call = _Call([*words, *remote.ssh_words, command])
        status = call.run(itertools.chain([text], payload), output, heard)
        complaints = log.read().decode(errors="replace").splitlines()
    before, opened, content = bytes(output).partition(_OPEN.encode() + b"\n")
    if status == _SSH_FAILED and not opened:
        raise DeviceError(_refusal(remote, [*last_lines, *complaints]))
    if status == _SSH_FAILED or status < 0:
        reason = _last(complaints, "closed")
        raise DeviceError(
            f"the connection to {remote.machine} broke in the middle ({reason}) | nothing was written here, and the "
            "far side tidies up by itself: try again"
        )
    if not opened:
        said = _last([*before.decode(errors="replace").splitlines(), *last_lines])
        raise DeviceError(
            f"{remote.machine} does not run our commands ({said}) | the account there needs a POSIX /bin/sh with head"
        )
    return Answer(status, content)


class _Call:
    """One running `ssh`, in a session of its own: a Ctrl-C is for us, who then stop the far side in good order."""

    def __init__(self, words: Sequence[str]) -> None:
        self._words = words
        self._stop = threading.Event()
        self._failures: list[BaseException] = []

    def run(self, payload: Iterable[bytes], output: bytearray, on_line: Callable[[str], None]) -> int:
        """Exit status; standard output is added to `output` as it comes. Raises what reading `payload` raised."""
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with subprocess.Popen(self._words, start_new_session=True, **pipes) as process:  # type: ignore[call-overload]
            sender = threading.Thread(target=self._send, args=(process.stdin, payload), daemon=True)
            sender.start()
            try:
                for line in _pumped(process, output):
                    on_line(line)
                status = process.wait()
            except BaseException:
                self._give_up(process)
                raise
            finally:
                self._stop.set()
                sender.join()
        if self._failures:
            raise self._failures[0]
        return status

    def _send(self, stdin: IO[bytes], payload: Iterable[bytes]) -> None:
        """Write the payload, then hold standard input open until `_stop`."""
        try:
            for chunk in payload:
                if self._stop.is_set():
                    break
                stdin.write(chunk)
            stdin.flush()
            self._stop.wait()
        except BrokenPipeError:
            pass  # ssh has ended: its exit status tells why.
        except BaseException as error:
            self._failures.append(error)
        finally:
            with suppress(BrokenPipeError):
                stdin.close()

    def _give_up(self, process: subprocess.Popen[bytes]) -> None:
        """End standard input and let the far side tidy up."""
        self._stop.set()
        try:
            for _ in _pumped(process, bytearray(), deadline_s=time.monotonic() + TIDY_UP_S):
                pass
        finally:
            # A sender that waits for a stalled connection is freed by this too.
            process.terminate()


def _pumped(process: subprocess.Popen[bytes], output: bytearray, deadline_s: float | None = None) -> Iterator[str]:
    """Lines of standard error as they come, until both streams end; standard output is added to `output`."""
    assert process.stdout is not None
    assert process.stderr is not None
    rest = b""
    with selectors.DefaultSelector() as selector:
        for stream in (process.stdout, process.stderr):
            selector.register(stream, selectors.EVENT_READ)
        while selector.get_map():
            left_s = None if deadline_s is None else deadline_s - time.monotonic()
            if left_s is not None and left_s <= 0:
                return
            for key, _ in selector.select(left_s):
                chunk = os.read(key.fd, 1 << 16)
                if not chunk:
                    selector.unregister(key.fileobj)
                elif key.fileobj is process.stdout:
                    output += chunk
                else:
                    *lines, rest = (rest + chunk).split(b"\n")
                    yield from (line.decode(errors="replace").rstrip("\r") for line in lines)
    if rest:
        yield rest.decode(errors="replace")


def _refusal(remote: RemoteDevice, lines: Sequence[str]) -> str:
    """What to say when `ssh` got nowhere, from what it said."""
    said, by_hand = "\n".join(lines), " ".join(["ssh", *(word for word in remote.ssh_words if word != "--")])
    if "IDENTIFICATION HAS CHANGED" in said:
        return (
            f"{remote.machine} shows another host key than before | it was set up anew, or somebody is in between: "
            "make sure, then remove the old key by ssh-keygen -R"
        )
    if "Host key verification failed" in said or "host key is known" in said:
        return f"the host key of {remote.machine} is not known here | compare it once by hand: {by_hand}"
    if "Permission denied" in said:
        return (
            f"{remote.machine} refused our key ({_last(lines)}) | let it in: ssh-copy-id, or ssh-add a key with a "
            "passphrase (passwords are never asked for)"
        )
    return f"{remote.machine} cannot be reached ({_last(lines)}) | see whether this works: {by_hand}"


def _last(lines: Sequence[str], otherwise: str = "without a word") -> str:
    return next((line.strip() for line in reversed(lines) if line.strip()), otherwise)
