"""Devices for tests: the real ones, and stand-ins for those that need a GPU, over a simulated one."""

import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import ModuleType
from typing import Any

import onnx
import onnxruntime as ort
import pytest
from click.testing import CliRunner

from edgeseg.bundle import Bundle, BundleConfiguration, FileRecord, Programs, file_sha256
from edgeseg.cli import main
from edgeseg.manifest import save_manifest
from edgeseg.runtime.backends import cuda_driver, onnxruntime_gpu_backend
from edgeseg.runtime.backends.base import usable_reason
from edgeseg.runtime.backends.onnxruntime_gpu_backend import GpuRunner
from edgeseg.runtime.engine_cache import EngineRecord, graph_sha256, store_engine
from edgeseg.runtime.engine_key import EngineKey
from edgeseg.runtime.session import Session
from edgeseg.runtime.session_loading import load
from support import cuda_modules
from support.simulated_gpu import SimulatedGpu
from support.tensorrt_runtime import engine_of, runtime_module

Prepare = Callable[[Bundle, BundleConfiguration], Bundle]


class Subject:
    """A device under test.

    Args:
        device: device string.
        prepare: makes a configuration of a bundle ready for it, by building its engines, say; the bundle to load.
        is_gpu: a real GPU runs it.
    """

    def __init__(self, device: str, prepare: Prepare | None = None, *, is_gpu: bool = False) -> None:
        self.device, self.is_gpu, self._prepare = device, is_gpu, prepare

    def load(self, bundle: Bundle, configuration: str) -> Session:
        """A session on the device."""
        if self._prepare is not None:
            bundle = self._prepare(bundle, bundle.configuration(configuration))
        return load(bundle, device=self.device, configuration=configuration, threads=1)


class SimulatedTensorrt(Subject):
    """`tensorrt:0` or `tensorrt-rtx:0` by stand-ins, whose engines are made when they are needed.

    Args:
        library: module.
        version: one that `support.tensorrt_runtime` knows.
        package: who does the GPU's memory, `cuda-python` or `pycuda`.
    """

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        library: str,
        version: str,
        package: str,
        gpu: SimulatedGpu | None = None,
    ) -> None:
        super().__init__(f"{library.replace('_', '-')}:0", self._with_engines)
        self.library, self.version = library, version
        self.gpu = gpu or SimulatedGpu()
        self.faults: set[str] = set()
        self.compiled: list[str] = []
        self.module: ModuleType = runtime_module(library, version, self.gpu, self.faults, self.compiled)
        monkeypatch.setitem(sys.modules, library, self.module)
        cuda_modules.install(monkeypatch, self.gpu, package)

    def _with_engines(self, bundle: Bundle, configuration: BundleConfiguration) -> Bundle:
        for role in configuration.graphs:
            self.store_engine(bundle, configuration, role)
        return bundle

    def store_engine(self, bundle: Bundle, configuration: BundleConfiguration, role: str, **other: Any) -> EngineRecord:
        """Put an engine of one role into the bundle's cache; `other` values of its key say that it is for others."""
        values: Mapping[str, Any] = {
            "graph_sha256": graph_sha256(configuration, role),
            "library": self.library,
            "version": self.version,
            "compute_capabilities": (".".join(map(str, self.gpu.compute_capability)),),
            "gpu": cuda_driver.gpu(0).name,
            **other,
        }
        content = engine_of(bundle.path(configuration.graphs[role].file), self.library, self.version)
        return store_engine(bundle.root, configuration, role, EngineKey(**values), content, build_s=0.0)


def simulated_gpu_provider(monkeypatch: pytest.MonkeyPatch, device: str, runner: type[GpuRunner]) -> Subject:
    """A runner of ONNX Runtime's GPU providers, run by the CPU's: all of it but the provider's name and its memory."""
    provider = "CPUExecutionProvider"
    monkeypatch.setattr(runner, "provider", provider)
    monkeypatch.setattr(runner, "memory", "cpu")
    monkeypatch.setattr(runner, "_providers", lambda self, role: [provider])
    monkeypatch.setattr(onnxruntime_gpu_backend.cuda_driver, "driver_problem", lambda index=0: None)
    assert provider in ort.get_available_providers()
    return Subject(device)


def real(device: str) -> Subject:
    """A device of this machine, engines and all; skips the test where there is none, and says why."""
    reason = usable_reason(device)
    if reason is not None:
        pytest.skip(f"{device} is not usable here: {reason}")
    prepare = {"tensorrt": _with_built_engines, "torch": bundle_with_programs}.get(
        device.partition(":")[0].partition("-")[0]
    )
    is_gpu = device.endswith(":0")
    return Subject(device, prepare and (lambda *entry: prepare(device, *entry)), is_gpu=is_gpu)


def _with_built_engines(device: str, bundle: Bundle, configuration: BundleConfiguration) -> Bundle:
    line = ["build", str(bundle.root), "--device", device, "--configuration", configuration.name]
    result = CliRunner().invoke(main, line)
    assert result.exit_code == 0, result.output
    return bundle


def bundle_with_programs(device: str, bundle: Bundle, configuration: BundleConfiguration) -> Bundle:
    """A copy of the bundle in which the configuration has programs of PyTorch too."""
    pytest.importorskip("torch", reason="programs of PyTorch are made by PyTorch")
    from edgeseg.export.torch_program import tensorrt_program, torch_program

    form = device.partition(":")[0]
    write = {"torch": torch_program, "torch-tensorrt": tensorrt_program}[form]
    folder = bundle.root.with_name(f"{bundle.name}-{form}-{configuration.name}.edgeseg")
    if folder.exists():
        return Bundle.open(folder)
    shutil.copytree(bundle.root, folder)
    files = {role: f"{configuration.name}.{role}.{form}.pt2" for role in configuration.graphs}
    for role, file in files.items():
        (folder / file).write_bytes(write(onnx.load(str(bundle.path(configuration.graphs[role].file)))))
    records = {file: FileRecord(file_sha256(folder / file), (folder / file).stat().st_size) for file in files.values()}
    with_programs = replace(configuration, programs={form: Programs(files)})
    save_manifest(replace(bundle, root=folder, configurations=(with_programs,), files={**bundle.files, **records}))
    return Bundle.open(folder)
