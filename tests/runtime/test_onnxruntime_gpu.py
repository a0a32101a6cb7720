"""ONNX Runtime's GPU providers: what they are asked for. The suite of sessions runs what is done with them."""

from collections import Counter
from dataclasses import replace

import numpy as np
import onnxruntime as ort
import pytest

from edgeseg.errors import DeviceError
from edgeseg.runtime.backends import cuda_driver
from edgeseg.runtime.backends.base import open_runner, usable_reason
from edgeseg.runtime.backends.onnxruntime_gpu_backend import CUDA, TENSORRT, CudaRunner, GpuRunner, OrtTensorrtRunner

PLAIN, PHASES = "plain_32x48", "phases_32x48_rho0-concat"
CPU = "CPUExecutionProvider"


class Providers:
    """Stands for an onnxruntime-gpu: sessions say that they have what they were asked for, and run on the CPU.

    Attributes:
        asked: providers of each session, with their options.
        refusal: what loading says as long as CUDA graphs are asked for; None when they can be recorded.
        started: providers that sessions say they have; None: those that they were asked for.
        graph_ids: `gpu_graph_id` of each run.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[list] = []
        self.refusal: str | None = None
        self.started: list[str] | None = None
        self.graph_ids: list[str | None] = []
        recorder, real = self, ort.InferenceSession

        class Session(real):  # type: ignore[misc, valid-type]
            def __init__(self, path: str, options: ort.SessionOptions, providers: list) -> None:
                recorder.asked.append(providers)
                flags = [value for _, options in pairs(providers) for key, value in options.items() if "graph" in key]
                if recorder.refusal is not None and any(value in ("1", "True") for value in flags):
                    raise RuntimeError(recorder.refusal)
                super().__init__(path, options, providers=[CPU])
                self._named = [name for name, _ in pairs(providers)] if recorder.started is None else recorder.started

            def get_providers(self) -> list[str]:
                return self._named

            def run_with_iobinding(self, binding: ort.IOBinding, run_options: ort.RunOptions | None = None) -> None:
                assert run_options is not None
                try:
                    recorder.graph_ids.append(run_options.get_run_config_entry("gpu_graph_id"))
                except RuntimeError:
                    recorder.graph_ids.append(None)
                super().run_with_iobinding(binding, run_options)

        monkeypatch.setattr(ort, "InferenceSession", Session)
        monkeypatch.setattr(ort, "get_available_providers", lambda: [TENSORRT, CUDA, CPU])
        monkeypatch.setattr(GpuRunner, "memory", "cpu")
        monkeypatch.setattr(cuda_driver, "driver_problem", lambda index=0: None)


def pairs(providers: list) -> list[tuple[str, dict[str, str]]]:
    return [(entry, {}) if isinstance(entry, str) else entry for entry in providers]


@pytest.fixture
def providers(monkeypatch: pytest.MonkeyPatch) -> Providers:
    return Providers(monkeypatch)


def opened(bundle, name: str, device: str, **knobs: str):
    configuration = bundle.configuration(name)
    if knobs:
        configuration = replace(configuration, knobs=replace(configuration.knobs, **knobs))
    return open_runner(bundle.root, configuration, device=device, threads=1)


def test_cuda_steps_are_graphs_of_their_own_when_buffers_take_turns(providers, bundle):
    with opened(bundle, PHASES, "cuda:1") as runner:
        for _ in range(7):
            runner.infer()
    assert [pairs(asked)[0] for asked in providers.asked] == [(CUDA, {"device_id": "1", "enable_cuda_graph": "1"})] * 3
    assert [pairs(asked)[-1][0] for asked in providers.asked] == [CPU] * 3
    first, *others = providers.graph_ids
    assert others == others[:2] * 3
    assert len({first, *others}) == 3
    assert None not in others


def test_cuda_runs_without_graphs_when_a_node_is_left_to_the_cpu(providers, bundle):
    providers.refusal = "This session cannot use the graph capture feature as requested by the user as all nodes ..."
    with opened(bundle, PLAIN, "cuda:0") as runner:
        runner.infer()
    assert [pairs(asked)[0][1]["enable_cuda_graph"] for asked in providers.asked] == ["1", "0"]
    assert providers.graph_ids == [None]


@pytest.mark.parametrize(("device", "words"), [("cuda:0", "CUDA and cuDNN"), ("ort-tensorrt:0", "cuDNN and TensorRT")])
def test_load_says_so_when_onnxruntime_falls_back_to_the_cpu(providers, bundle, device, words):
    providers.started = [CPU]
    with pytest.raises(DeviceError, match=rf"could not start it: the .*{words} libraries or the GPU are missing"):
        opened(bundle, PLAIN, device).activate()


@pytest.mark.parametrize("runner", [CudaRunner, OrtTensorrtRunner])
def test_a_step_copies_one_frame_in_and_one_label_map_out(providers, bundle, monkeypatch, runner):
    copies: Counter[str] = Counter()
    copy_in, copy_out = ort.OrtValue.update_inplace, ort.OrtValue.numpy

    def counted_in(self, array):
        copies[f"in {array.dtype} {array.shape}"] += 1
        copy_in(self, array)

    def counted_out(self):
        array = copy_out(self)
        copies[f"out {array.dtype} {array.shape}"] += 1
        return array

    monkeypatch.setattr(ort.OrtValue, "update_inplace", counted_in)
    monkeypatch.setattr(ort.OrtValue, "numpy", counted_out)
    device = "cuda:0" if runner is CudaRunner else "ort-tensorrt:0"
    with opened(bundle, PHASES, device) as active:
        for _ in range(5):
            active.infer()
    assert copies == {"in uint8 (1, 32, 48, 3)": 5, "out uint8 (1, 32, 48)": 5}


@pytest.mark.parametrize(("name", "expected"), [(PLAIN, ["True"]), (PHASES, ["True", "True", "True"])])
def test_tensorrt_records_a_graph_where_addresses_stay(providers, bundle, name, expected):
    with opened(bundle, name, "ort-tensorrt:0") as runner:
        runner.infer()
    assert [pairs(asked)[0][1]["trt_cuda_graph_enable"] for asked in providers.asked] == expected


def test_tensorrt_records_no_graph_where_a_role_follows_itself(providers, bundle):
    with opened(bundle, "frames_32x48", "ort-tensorrt:0") as runner:
        runner.infer()
    # The first step's buffers never change; those of the others take turns.
    assert [pairs(asked)[0][1]["trt_cuda_graph_enable"] for asked in providers.asked] == ["True", "False"]


@pytest.mark.parametrize(
    ("knobs", "fp16", "int8"),
    [({}, "False", "False"), ({"precision": "fp16"}, "True", "False"), ({"precision": "int8"}, "False", "True"),
     ({"state_dtype": "fp16"}, "True", "False")],
)  # fmt: skip
def test_tensorrt_keeps_the_precision_of_the_graph(providers, bundle, knobs, fp16, int8):
    opened(bundle, PHASES, "ort-tensorrt:0", **knobs).activate()
    options = pairs(providers.asked[0])[0][1]
    assert (options["trt_fp16_enable"], options["trt_int8_enable"]) == (fp16, int8)


def test_tensorrt_keeps_its_engines_beside_the_bundle(providers, own_bundle):
    opened(own_bundle, PLAIN, "ort-tensorrt:0").activate()
    folder = own_bundle.root.with_name("own.engines") / "onnxruntime"
    assert folder.is_dir()
    assert pairs(providers.asked[0])[0][1]["trt_engine_cache_path"] == str(folder)
    own_bundle.verify()


def test_tensorrt_runs_without_a_cache_when_the_folder_cannot_be_made(providers, own_bundle, caplog):
    own_bundle.root.with_name("own.engines").write_text("a file in the way")
    with opened(own_bundle, PLAIN, "ort-tensorrt:0") as runner:
        runner.infer()
        assert np.unique(runner.labels).tolist() == [0]
    assert "trt_engine_cache_path" not in pairs(providers.asked[0])[0][1]
    assert "engines are built anew each time" in caplog.text


@pytest.mark.parametrize(("device", "provider"), [("cuda:0", CUDA), ("ort-tensorrt:0", TENSORRT)])
def test_the_device_is_usable_with_provider_and_driver_alone(providers, monkeypatch, device, provider):
    assert usable_reason(device) is None
    monkeypatch.setattr(cuda_driver, "driver_problem", lambda index=0: "the NVIDIA driver is too old")
    assert usable_reason(device) == "the NVIDIA driver is too old"
    monkeypatch.setattr(ort, "get_available_providers", lambda: [CPU])
    assert provider in str(usable_reason(device))
