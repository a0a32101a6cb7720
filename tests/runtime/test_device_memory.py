"""The seam of GPU memory, by both packages, over a simulated GPU."""

import sys

import numpy as np
import pytest

from edgeseg.errors import DeviceError, MissingPackageError
from edgeseg.runtime.backends.device_memory import ALIGNMENT, DeviceMemory, memory_package, memory_problem, open_memory
from support import cuda_modules
from support.simulated_gpu import GARBAGE, SimulatedGpu


@pytest.fixture
def gpu() -> SimulatedGpu:
    return SimulatedGpu(is_integrated=True)


@pytest.fixture(params=["cuda-python", "pycuda"])
def memory(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, gpu: SimulatedGpu) -> DeviceMemory:
    cuda_modules.install(monkeypatch, gpu, request.param)
    assert memory_package() == request.param
    return open_memory(0)


def test_bytes_come_back_from_the_device_as_they_went(memory):
    with memory.current():
        address = memory.alloc(6)
        there, back = memory.host_buffer((2, 3), mapped=False), memory.host_buffer((2, 3), mapped=False)
        assert not back.array.any()
        there.array[...] = np.arange(6).reshape(2, 3)
        memory.copy_to_device(address, there.array)
        memory.copy_to_host(back.array, address)
        assert not back.array.any()
        memory.synchronise()
    assert back.array.tolist() == [[0, 1, 2], [3, 4, 5]]
    memory.close()


def test_addresses_are_aligned_and_memory_is_freed(memory, gpu):
    with memory.current():
        addresses = [memory.alloc(1) for _ in range(5)]
        assert [address % ALIGNMENT for address in addresses] == [0] * 5
        assert int(gpu.view(addresses[0], 1)[0]) == GARBAGE
        memory.free(addresses[0])
        assert gpu.device_bytes == 4
    memory.close()
    assert gpu.device_bytes == 0


def test_the_gpu_sees_mapped_memory_where_it_lies(memory, gpu):
    with memory.current():
        plain, mapped = memory.host_buffer((4,), mapped=False), memory.host_buffer((4,), mapped=True)
    assert plain.device_address is None
    mapped.array[...] = 7
    assert gpu.view(mapped.device_address, 4).tolist() == [7, 7, 7, 7]
    memory.close()


def test_a_graph_runs_when_it_is_launched_and_not_when_it_is_recorded(memory, gpu):
    with memory.current():
        address, host = memory.alloc(1), memory.host_buffer((1,), mapped=False)
        host.array[0] = 3
        graph = memory.capture(lambda: memory.copy_to_device(address, host.array))
        memory.synchronise()
        assert int(gpu.view(address, 1)[0]) == GARBAGE
        for value in (4, 5):
            host.array[0] = value
            memory.launch(graph)
            memory.synchronise()
            assert int(gpu.view(address, 1)[0]) == value
        memory.destroy(graph)
    memory.close()
    assert gpu.copies == {"in": 2}


def test_the_stream_runs_again_when_recording_breaks_off(memory, gpu):
    def breaks() -> None:
        memory.copy_to_device(address, host.array)
        raise KeyboardInterrupt

    with memory.current():
        address, host = memory.alloc(1), memory.host_buffer((1,), mapped=False)
        with pytest.raises(KeyboardInterrupt):
            memory.capture(breaks)
        memory.copy_to_device(address, host.array)
        memory.synchronise()
    memory.close()
    assert gpu.copies == {"in": 1}
    assert "graphs" not in gpu.held


def test_events_count_the_work_between_them(memory):
    with memory.current():
        address, host = memory.alloc(1), memory.host_buffer((1,), mapped=False)
        begin, end = memory.event(), memory.event()
        memory.record(begin)
        memory.copy_to_device(address, host.array)
        memory.copy_to_device(address, host.array)
        memory.record(end)
        memory.wait(end)
        # A quarter of a millisecond for each, the second event too.
        assert memory.elapsed_ms(begin, end) == 0.75
        del begin, end
    memory.close()


def test_waiting_for_an_event_leaves_the_core_to_others(memory, gpu):
    with memory.current():
        end = memory.event()
        memory.record(end)
        memory.wait(end)
        assert gpu.busy_waits == 0
        del end
    memory.close()


def test_a_call_says_so_when_the_context_is_not_current(memory):
    with pytest.raises(DeviceError, match=r"GPU 0 gives no 0\.0 MB \| cuMemAlloc: CUDA_ERROR_INVALID_CONTEXT"):
        memory.alloc(10)
    memory.close()


def test_too_much_memory_is_told_in_megabytes(memory):
    with memory.current(), pytest.raises(DeviceError, match=r"gives no 1000\.0 MB \| .*OUT_OF_MEMORY \| end other"):
        memory.alloc(10**9)
    memory.close()


def test_memory_may_be_closed_twice(memory, gpu):
    memory.close()
    memory.close()
    del memory
    assert "streams" not in gpu.held


def test_a_driver_without_a_function_is_told_as_such(monkeypatch, gpu):
    def missing(*arguments: object) -> None:
        raise RuntimeError('Function "cuEventElapsedTime_v2" not found')

    cuda_modules.install(monkeypatch, gpu, "cuda-python")
    memory = open_memory(0)
    monkeypatch.setattr(sys.modules["cuda.bindings.driver"], "cuEventElapsedTime", missing)
    with memory.current():
        events = memory.event(), memory.event()
        with pytest.raises(DeviceError, match=r"cuEventElapsedTime failed on GPU 0 \| Function .* not found"):
            memory.elapsed_ms(*events)
    memory.close()


def test_neither_package_is_told_with_both_names(monkeypatch, gpu):
    cuda_modules.install(monkeypatch, gpu, None)
    assert memory_package() is None
    with pytest.raises(MissingPackageError, match="neither cuda-python nor pycuda is installed"):
        open_memory(0)
    assert "pip install cuda-python" in str(memory_problem())


def test_cuda_python_is_taken_when_both_are_installed(monkeypatch, gpu):
    cuda_modules.install(monkeypatch, gpu, "cuda-python")
    for module in cuda_modules.pycuda(gpu):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    assert memory_package() == "cuda-python"
