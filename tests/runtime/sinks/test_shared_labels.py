import os
import signal
import struct
import subprocess
import sys
import time
from dataclasses import replace
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path

import numpy as np
import pytest

from edgeseg.errors import InputError
from edgeseg.runtime.sinks import SharedLabels, SharedLabelsSink
from support.waiting import until

pytestmark = pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="no /dev/shm: shared memory is elsewhere here")

READER = """
import sys
from edgeseg.runtime.sinks import SharedLabels
assert "cv2" not in sys.modules and "onnxruntime" not in sys.modules
seen = 0
with SharedLabels.open(sys.argv[1]) as shared:
    print("open", flush=True)
    while True:
        result = shared.wait_newer(seen, timeout_s=0.05)
        if result is None:
            if shared.has_ended:
                break
            continue
        assert result.sequence > seen
        seen = result.sequence
        assert (result.labels == result.frame_index % 251).all(), "torn"
        assert result.labels.shape == (300 + result.frame_index % 2, 400)
        last = result
    print(last.frame_index, last.configuration, last.captured_at)
"""
WRITER = """
import sys
import numpy as np
from edgeseg.runtime.result import Result
from edgeseg.runtime.sinks import SharedLabelsSink
sink = SharedLabelsSink(sys.argv[1])
sink.open()
labels = np.full((3, 4), 9, np.uint8)
sink.write(Result(5, 1.0, 1.5, 1.0, labels, np.zeros((3, 4, 3), np.uint8), "killed", 5, 1.0, 1.0))
print("written", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def name():
    return f"edgeseg-test-{os.getpid()}"


def test_another_process_reads_the_newest_labels_and_none_that_are_torn(made, name):
    with SharedLabelsSink(name) as sink:
        reader = subprocess.Popen([sys.executable, "-c", READER, name], stdout=subprocess.PIPE, text=True)
        assert reader.stdout is not None
        assert reader.stdout.readline() == "open\n"
        results = [made(index, size_hw=(300 + index % 2, 400)) for index in range(251)]
        for index, result in enumerate(results):
            result.labels[:] = index
        for _ in range(8):
            for result in results:
                sink.write(result)
    out, _ = reader.communicate(timeout=30)
    assert reader.returncode == 0
    assert out == "250 plain_32x48 35.0\n"
    assert not Path("/dev/shm", name).exists()


def test_a_result_comes_back_as_it_was(made, name):
    with SharedLabelsSink(name) as sink, SharedLabels.open(name) as shared:
        assert shared.read() is None
        sink.write(made(4))
        read = shared.read()
        assert read is not None
        assert (read.sequence, read.frame_index, read.configuration) == (1, 4, "plain_32x48")
        assert (read.captured_at, read.stands_for, read.age_s) == (10.4, 10.4, made(4).age_s)
        np.testing.assert_array_equal(read.labels, made(4).labels)
        assert shared.wait_newer(1, timeout_s=0.0) is None
        assert not shared.has_ended
    assert (read.labels == 1).all()


def test_the_age_of_labels_that_could_not_be_moved_is_that_of_their_frame(made, name):
    with SharedLabelsSink(name) as sink, SharedLabels.open(name) as shared:
        sink.write(replace(made(4), source_index=2, source_at=10.2, fallback="scene cut"))
        read = shared.read()
    assert read is not None
    assert (read.frame_index, read.source_index, read.age_s) == (4, 2, pytest.approx(0.25))


def test_labels_that_another_program_scribbled_over_are_not_read(made, name):
    with SharedLabelsSink(name) as sink, SharedLabels.open(name) as shared:
        sink.write(made(4))
        foreign = SharedMemory(name)
        foreign.buf[300] ^= 1
        foreign.close()
        with pytest.raises(InputError, match="is torn"):
            shared.read()


def test_the_memory_of_a_writer_that_was_killed_is_taken_over(made, name):
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    assert writer.stdout.readline() == "written\n"
    with SharedLabels.open(name) as shared:
        with pytest.raises(InputError, match=f"is written by process {writer.pid}"):
            SharedLabelsSink(name).open()
        writer.send_signal(signal.SIGKILL)
        writer.communicate(timeout=10)
        until(lambda: shared.has_ended)
        read = shared.read()
        assert read is not None
        assert (read.configuration, read.labels.tolist()) == ("killed", [[9] * 4] * 3)
    # Whoever looks for it finds it, until another writer comes.
    time.sleep(0.3)
    with SharedLabels.open(name) as shared:
        assert shared.has_ended
    with SharedLabelsSink(name) as sink, SharedLabels.open(name) as shared:
        sink.write(made(1))
        assert shared.read() is not None


def test_a_writer_lives_as_long_as_it_locks_whatever_its_process_is_called_here(made, name):
    with SharedLabelsSink(name) as sink, SharedLabels.open(name) as shared:
        # As seen from a container, where that process has another number or none.
        struct.pack_into("<I", sink._memory, 16, 2**22 + 1)
        assert not shared.has_ended
        with pytest.raises(InputError, match="is written by process"):
            SharedLabelsSink(name).check()


def test_checking_leaves_nothing_and_what_a_dead_writer_left(made, name):
    SharedLabelsSink(name).check()
    assert not Path("/dev/shm", name).exists()
    with SharedLabelsSink(name) as sink:
        left = Path("/dev/shm", name).read_bytes()
        sink.write(made(0))
    Path("/dev/shm", name).write_bytes(left)
    SharedLabelsSink(name).check()
    with SharedLabels.open(name) as shared:
        assert shared.has_ended
    with SharedLabelsSink(name) as sink:
        sink.write(made(0))
    assert not Path("/dev/shm", name).exists()


def test_memory_that_was_removed_and_made_by_another_stays_when_the_sink_is_closed(made, name):
    first, second = SharedLabelsSink(name), SharedLabelsSink(name)
    first.open()
    Path("/dev/shm", name).unlink()
    second.open()
    first.close()
    assert Path("/dev/shm", name).exists()
    second.close()
    assert not Path("/dev/shm", name).exists()


def test_labels_that_are_too_large_are_refused(made, name):
    with SharedLabelsSink(name, capacity_bytes=100) as sink, pytest.raises(InputError, match="got 1536 bytes"):
        sink.write(made(0))


@pytest.mark.parametrize("wrong", ["", "a/b", ".hidden", "../x"])
def test_a_name_that_is_a_path_is_refused(wrong):
    with pytest.raises(InputError, match="a file name without a folder"):
        SharedLabelsSink(wrong)
    with pytest.raises(InputError, match="a file name without a folder"):
        SharedLabels.open(wrong)


def test_memory_that_is_not_there_or_another_programs_is_refused(name):
    with pytest.raises(InputError, match="no shared memory"):
        SharedLabels.open(name)
    foreign = SharedMemory(name, create=True, size=4096)
    try:
        with pytest.raises(InputError, match="another program's"):
            SharedLabels.open(name)
        with pytest.raises(InputError, match="another program's"):
            SharedLabelsSink(name).open()
    finally:
        foreign.close()
        foreign.unlink()
