"""A real ssh server on the loopback address, with keys of its own, that the system's `ssh` talks to.

Like sshd without a terminal it runs the command of a client by the account's shell, and when the connection ends it
closes the command's pipes and leaves it alone.
"""

import asyncio
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

USER = "tester"


class LoopbackServer:
    """The far side: a home folder, and the account's shell in it."""

    def __init__(self, root: Path) -> None:
        self.home, self.keys = root / "home", root / "keys"
        self.work = self.home / "tmp"
        """Its folder for temporary files."""
        self.work.mkdir(parents=True)
        self.keys.mkdir()
        self.port = 0
        self.commands: list[str] = []
        """What clients asked for."""
        self.path = f"{self.home}/bin:{Path(sys.executable).parent}:/usr/bin:/bin"
        self.login = ""
        """Shell commands that the account runs before each command, as from a .bashrc."""
        self.loop = asyncio.new_event_loop()
        self._connections: list[Any] = []
        self._listener: Any = None

    @property
    def address(self) -> str:
        return f"ssh://{USER}@127.0.0.1:{self.port}"

    def options(self, **changed: str) -> list[str]:
        """Options of `ssh` that keep the tester's own keys and known hosts out; `changed` replaces some."""
        own = {
            "IdentityFile": str(self.keys / "client"),
            "IdentitiesOnly": "yes",
            "IdentityAgent": "none",
            "UserKnownHostsFile": str(self.keys / "known_hosts"),
            "GlobalKnownHostsFile": "/dev/null",
            "StrictHostKeyChecking": "ask",
        }
        return [f"{key}={value}" for key, value in (own | changed).items()]

    def command(self, name: str, script: str) -> str:
        """Write a shell script that the far side finds before all other commands; its path as it may be told it."""
        path = self.home / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return f"~/bin/{name}"

    def cut(self) -> None:
        """Break all connections without a word."""
        self.loop.call_soon_threadsafe(lambda: [connection.abort() for connection in self._connections])

    def is_tidy(self) -> bool:
        """Whether nothing of a client's is left: no temporary file, no process."""
        return not list(self.work.iterdir()) and not self.processes()

    def processes(self) -> list[str]:
        """Command lines of the processes here that were started by a client, from /proc."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if f"HOME={self.home}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                    found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        return found

    async def listen(self, asyncssh: Any) -> None:
        """Make the keys and begin to answer."""
        for name in ("host", "client", "stranger"):
            key = asyncssh.generate_private_key("ssh-ed25519")
            key.write_private_key(self.keys / name)
            key.write_public_key(self.keys / f"{name}.pub")
            (self.keys / name).chmod(0o600)
        self._listener = await asyncssh.listen(
            "127.0.0.1",
            0,
            server_host_keys=[str(self.keys / "host")],
            authorized_client_keys=str(self.keys / "client.pub"),
            process_factory=self._serve,
            encoding=None,
        )
        self.port = self._listener.get_port()
        host_key = (self.keys / "host.pub").read_text()
        (self.keys / "known_hosts").write_text(f"[127.0.0.1]:{self.port} {host_key}")

    async def close(self) -> None:
        """Answer no more, break all connections and let go of what was started for them."""
        if self._listener is not None:
            self._listener.close()
        for connection in self._connections:
            connection.abort()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, process: Any) -> None:
        self._connections.append(process.channel.get_connection())
        self.commands.append(process.command)
        pipe = asyncio.subprocess.PIPE
        environment = {"HOME": str(self.home), "TMPDIR": str(self.work), "PATH": self.path, "OMP_NUM_THREADS": "1"}
        child = await asyncio.create_subprocess_exec(
            "/bin/sh",
            "-c",
            self.login + process.command,
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            env=environment,
            cwd=self.home,
        )
        feeding = asyncio.create_task(_pump(process.stdin, child.stdin))
        outputs = [_pump(child.stdout, process.stdout), _pump(child.stderr, process.stderr)]
        await asyncio.gather(*outputs)
        status = await child.wait()
        feeding.cancel()
        process.exit(status)


async def _pump(source: Any, target: Any) -> None:
    """Hand on all bytes; the target's end follows the source's."""
    try:
        while chunk := await source.read(1 << 16):
            target.write(chunk)
            await target.drain()
    except OSError:
        pass  # The other side went away.
    finally:
        if isinstance(target, asyncio.StreamWriter):
            target.close()


@contextmanager
def loopback_server(root: Path) -> Iterator[LoopbackServer]:
    """A running server with its files below `root`; skips the test where there is no ssh or no asyncssh."""
    if shutil.which("ssh") is None:
        pytest.skip("no ssh client is installed here")
    asyncssh = pytest.importorskip("asyncssh", reason="the loopback server needs asyncssh")
    server = LoopbackServer(root)
    thread = threading.Thread(target=server.loop.run_forever, daemon=True)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(server.listen(asyncssh), server.loop).result(timeout=20)
        yield server
    finally:
        asyncio.run_coroutine_threadsafe(server.close(), server.loop).result(timeout=20)
        server.loop.call_soon_threadsafe(server.loop.stop)
        thread.join(timeout=10)
        server.loop.close()
