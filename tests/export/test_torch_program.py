"""Programs beside the graphs: in the bundle, in the manifest, compared with the network, kept by --add."""

import sys
from dataclasses import replace
from types import ModuleType

import numpy as np
import onnx
import pytest
import torch
from onnx import helper

from edgeseg.bundle import Bundle, BundleConfiguration
from edgeseg.errors import ArtifactError, DeviceError, InputError, MissingPackageError, ParityError
from edgeseg.export import pipeline, torch_program
from edgeseg.export.graph_module import GraphModule
from edgeseg.export.parity import ParityVideo
from edgeseg.export.pipeline import ExportOptions, export_bundle
from edgeseg.export.program_parity import check_programs
from edgeseg.export.sweep import Grid, plan_grid
from edgeseg.export.torch_program import program_formats
from edgeseg.runtime.session import Session


@pytest.fixture(autouse=True)
def _few_frames(monkeypatch):
    """Parity on its own frames, without the simulator's start."""
    random = np.random.default_rng(5)
    video = ParityVideo("noise", tuple(random.integers(0, 256, (20, 48, 64, 3), dtype=np.uint8)))
    monkeypatch.setattr(pipeline, "parity_video", lambda dataset, split: video)


def export(source, out, formats=("torch",), add=False, **grid) -> Bundle:
    grid = {"sizes_hw": ((48, 64),), "labels_strides": (1,), **grid}
    requests = plan_grid([source], Grid(**grid), sweep=True)
    options = ExportOptions(max_offset=0, threads=1, formats=formats, add=add)
    return export_bundle(requests, out, data=None, options=options)


def labels_of(bundle: Bundle, entry: BundleConfiguration, device: str, frames) -> list[np.ndarray]:
    with Session(bundle.root, entry, device=device, threads=1) as session:
        return [session.step(frame) for frame in frames]


@pytest.mark.parametrize(
    ("input_frames", "rho", "form"),
    [(1, "dense", ()), (2, "dense", ()), (1, 0.25, ("concat",)), (1, 0.25, ("split",)), (2, 0.0, ("concat",))],
)
def test_programs_give_the_labels_of_the_graphs_and_are_compared_with_the_network(
    make_source, tmp_path, frames_rgb, input_frames, rho, form
):
    bundle = export(make_source(input_frames), tmp_path / "a.edgeseg", rhos=(rho,), cwm_forms=form)
    bundle.verify()
    (entry,) = bundle.configurations
    programs = entry.programs["torch"]
    assert programs.files == {role: f"{entry.name}.{role}.torch.pt2" for role in entry.graphs}
    assert set(programs.files.values()) <= set(entry.files) & set(bundle.files)
    assert (programs.parity.video, programs.parity.frames) == ("noise", entry.parity.frames)
    assert programs.parity.label_agreement >= 0.999
    expected = labels_of(bundle, entry, "cpu", frames_rgb[:7])
    for labels, wanted in zip(labels_of(bundle, entry, "torch:cpu", frames_rgb[:7]), expected, strict=True):
        assert (labels == wanted).mean() >= 0.999


def test_device_profiles_stay_valid_when_programs_are_added(make_source, tmp_path):
    plain = export(make_source(), tmp_path / "a.edgeseg", formats=())
    with_programs = export(make_source(), tmp_path / "b.edgeseg")
    assert plain.configurations[0].programs == {}
    assert with_programs.digest == plain.digest


def test_programs_stay_as_they_are_when_a_configuration_is_added(make_source, tmp_path):
    first = export(make_source(), tmp_path / "a.edgeseg")
    both = export(make_source(), tmp_path / "a.edgeseg", formats=(), add=True, labels_strides=(2,))
    kept, added = both.configurations
    assert kept.programs == first.configurations[0].programs
    assert all(both.files[name] == first.files[name] for name in kept.programs["torch"].files.values())
    assert added.programs == {}


def test_programs_of_a_lower_precision_are_held_against_its_graphs(make_source, tmp_path, frames_rgb):
    bundle = export(make_source(), tmp_path / "a.edgeseg", rhos=(0.25,), state_dtypes=("fp16",))
    (entry,) = bundle.configurations
    the_network_is_not_asked = None
    video = ParityVideo("frames", tuple(frames_rgb))
    parity = check_programs(entry, the_network_is_not_asked, video, folder=bundle.root)["torch"].parity
    assert (parity.video, parity.frames) == ("frames", 20)
    assert parity.label_agreement >= 0.999


def test_export_fails_and_leaves_nothing_when_a_program_differs_from_the_network(make_source, tmp_path, monkeypatch):
    def of_another_network(model):
        changed = onnx.ModelProto.FromString(model.SerializeToString())
        for entry in changed.graph.initializer:
            if entry.name == "head.weight":
                entry.CopyFrom(onnx.numpy_helper.from_array(-onnx.numpy_helper.to_array(entry), entry.name))
        return original(changed)

    original = torch_program.torch_program
    monkeypatch.setattr(torch_program, "torch_program", of_another_network)
    with pytest.raises(ParityError, match=r"the torch program step differs from the network at step 0 .* nothing was"):
        export(make_source(), tmp_path / "a.edgeseg")
    assert list(tmp_path.iterdir()) == []


def test_manifest_is_refused_when_a_role_has_no_program(make_source, tmp_path):
    from edgeseg.manifest import save_manifest

    bundle = export(make_source(2), tmp_path / "a.edgeseg")
    (entry,) = bundle.configurations
    programs = replace(entry.programs["torch"], files={"step": entry.programs["torch"].files["step"]})
    save_manifest(replace(bundle, configurations=(replace(entry, programs={"torch": programs}),)))
    with pytest.raises(ArtifactError, match="has no program for some of its roles: torch"):
        Bundle.open(bundle.root)


@pytest.mark.parametrize(
    ("names", "formats"),
    [
        ((), ()),
        (("onnx",), ()),
        (("torch",), ("torch",)),
        (("torch-tensorrt", "onnx", "torch", "torch"), ("torch", "torch-tensorrt")),
    ],
)
def test_formats_are_those_besides_onnx(names, formats):
    assert program_formats(names) == formats


def test_unknown_format_lists_the_known_ones():
    with pytest.raises(InputError, match=r"unknown --format 'torchscript' \| known: onnx, torch, torch-tensorrt"):
        program_formats(["onnx", "torchscript"])


def test_module_refuses_operators_of_other_domains():
    node = helper.make_node("Relu", ["x"], ["y"], domain="com.microsoft", name="fused")
    tensors = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [2]) for name in ("x", "y")]
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(helper.make_graph([node], "g", tensors[:1], tensors[1:]), opset_imports=opsets)
    with pytest.raises(InputError, match=r"node fused \(Relu\)"):
        GraphModule(model)


# Torch-TensorRT, over a stand-in with the names of torch_tensorrt 2.13 that are used.


@pytest.fixture
def package(monkeypatch) -> ModuleType:
    """It compiles to the program itself, on a GPU that is the CPU."""
    module, dynamo = ModuleType("torch_tensorrt"), ModuleType("torch_tensorrt.dynamo")
    module.dynamo, module.asked = dynamo, []

    def compile_program(program, *, arg_inputs, min_block_size):
        module.asked.append(("compile", [tuple(value.shape) for value in arg_inputs], min_block_size))
        return program

    def save(compiled, path, *, output_format, arg_inputs, extra_files):
        module.asked.append(("save", output_format))
        torch.export.save(compiled, path, extra_files=extra_files)

    dynamo.compile, module.save = compile_program, save
    module.load = lambda path, extra_files: torch.export.load(path, extra_files=extra_files)
    monkeypatch.setitem(sys.modules, "torch_tensorrt", module)
    monkeypatch.setattr(torch_program, "missing_gpu", lambda index: None)
    monkeypatch.setattr(torch.Tensor, "cuda", lambda tensor: tensor)
    return module


def test_compiled_programs_are_saved_as_exported_programs_and_run_by_their_package(
    make_source, tmp_path, monkeypatch, package
):
    from support.torch_graphs import simulated_torch_gpu

    simulated_torch_gpu(monkeypatch)
    monkeypatch.setattr("edgeseg.runtime.backends.torch_backend.missing", lambda package: None)
    bundle = export(make_source(2), tmp_path / "a.edgeseg", formats=("torch-tensorrt",))
    image = (1, 48, 64, 3)
    assert package.asked == [
        ("compile", [image], 1),
        ("save", "exported_program"),
        ("compile", [image, image], 1),
        ("save", "exported_program"),
    ]
    (entry,) = bundle.configurations
    assert entry.programs["torch-tensorrt"].parity.label_agreement >= 0.999


def test_compiled_programs_are_refused_before_the_work_when_the_package_is_missing(make_source, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_tensorrt", None)
    with pytest.raises(MissingPackageError, match=r"torch_tensorrt cannot be imported .* 'edgeseg\[torch-tensorrt\]"):
        export(make_source(), tmp_path / "a.edgeseg", formats=("torch-tensorrt",))


def test_compiled_programs_are_refused_before_the_work_when_there_is_no_gpu(
    make_source, tmp_path, monkeypatch, package
):
    monkeypatch.setattr(torch_program, "missing_gpu", lambda index: "torch finds no GPU or no driver")
    with pytest.raises(
        DeviceError, match=r"compiles for the GPU of this machine \| torch finds no GPU .*export on the"
    ):
        export(make_source(), tmp_path / "a.edgeseg", formats=("torch-tensorrt",))
    assert package.asked == []


def test_compiled_programs_of_int8_are_refused_with_both_options_named(make_source, package):
    (request,) = plan_grid([make_source()], Grid(sizes_hw=((48, 64),), labels_strides=(1,)), sweep=True)
    with pytest.raises(InputError, match="--format torch-tensorrt and --precision int8 exclude each other"):
        torch_program.check_formats([replace(request.knobs, precision="int8")], ["torch-tensorrt"])


def test_failure_of_the_compiler_is_one_line_with_the_way_out(make_source, tmp_path, package):
    def fails(program, **options):
        raise RuntimeError("[02/30] Error: layer\n  not supported")

    package.dynamo.compile = fails
    with pytest.raises(
        InputError, match=r"cannot be compiled by Torch-TensorRT \| RuntimeError: \[02/30\] Error: layer not"
    ):
        export(make_source(), tmp_path / "a.edgeseg", formats=("torch-tensorrt",))
    assert list(tmp_path.iterdir()) == []
