"""The shell script of the far side, run here."""

import io
import os
import subprocess
import tarfile

from edgeseg.runtime.remote_script import measuring_script
from support.waiting import until


def empty_archive() -> bytes:
    stream = io.BytesIO()
    tarfile.open(fileobj=stream, mode="w").close()
    return stream.getvalue()


def test_a_command_is_stopped_when_the_signal_comes_before_its_number_is_noted(tmp_path):
    command, log = tmp_path / "edgeseg", tmp_path / "log"
    lines = ("#!/bin/sh", f'trap "echo stopped >>{log}; exit 143" TERM', f"echo begun >>{log}",
             "for number in $(seq 200); do sleep 0.1; done")  # fmt: skip
    command.write_text("\n".join(lines))
    command.chmod(0o755)
    archive = empty_archive()
    script = measuring_script([str(command)], [["profile"]], len(archive), "")
    # The worst moment, which a busy machine makes long.
    noted = "  child=$!\n  wait"
    assert script.count(noted) == 1
    script = script.replace(noted, f"  while ! [ -s {log} ]; do sleep 0.05; done\n  kill -TERM $$\n{noted}")
    (tmp_path / "work").mkdir()
    with subprocess.Popen(
        ["/bin/sh", "-c", script], stdin=subprocess.PIPE, env={**os.environ, "TMPDIR": str(tmp_path / "work")}
    ) as shell:
        shell.stdin.write(archive)
        shell.stdin.flush()
        assert shell.wait(20) == 143
        shell.stdin.close()
    until(lambda: log.read_text().splitlines() == ["begun", "stopped"])
    assert not list((tmp_path / "work").iterdir())
