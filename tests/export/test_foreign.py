import sys

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from edgeseg.classes import CAMVID, ClassSet
from edgeseg.errors import InputError
from edgeseg.export.foreign import Description, call_factory, foreign_source, parse_classes, read_description
from edgeseg.export.pipeline import ExportOptions, export_bundle
from edgeseg.export.sweep import Grid, plan_grid

CLASSES = ClassSet(("road", "car", "sky"), ((1, 2, 3), (4, 5, 6), (7, 8, 9)), movable=("car",))
FCN = """
import torch
from torch import nn

class Fcn(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.encoder = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(),
            nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU(),
            nn.Conv2d(8, 8, 3, 1, 1), nn.ReLU())
        self.score = nn.Conv2d(8, 3, 1)
    def forward(self, image):
        return {"out": self.score(self.encoder(image))}

def build():
    return Fcn()

def broken():
    raise KeyError("weights")

def number():
    return 7
"""


@pytest.fixture
def fcn_module(tmp_path, monkeypatch):
    """Name of a module in the working directory that holds a hand-made FCN."""
    (tmp_path / "handmade_fcn.py").write_text(FCN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield "handmade_fcn"
    sys.modules.pop("handmade_fcn", None)


def exported(source, out, data, **grid):
    requests = plan_grid([source], Grid(**grid), sweep=True)
    return export_bundle(requests, out, data=data, options=ExportOptions(max_offset=1, threads=1))


def onnx_fcn(
    path,
    *,
    layout="NCHW",
    element=TensorProto.FLOAT,
    output="logits",
    opset=17,
    free=True,
    logits_layout="NCHW",
    extra=False,
):
    """A small FCN as other tools write it: strided convolution, ReLU, 1x1 convolution to 3 classes."""
    random = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(random.normal(size=(8, 3, 3, 3)).astype(np.float32), "w0"),
        numpy_helper.from_array(random.normal(size=(3, 8, 1, 1)).astype(np.float32), "w1"),
    ]
    nodes, image = [], "image"
    if layout == "NHWC":
        nodes.append(helper.make_node("Transpose", [image], ["nchw"], perm=[0, 3, 1, 2]))
        image = "nchw"
    if element != TensorProto.FLOAT:
        nodes.append(helper.make_node("Cast", [image], ["float"], to=TensorProto.FLOAT))
        image = "float"
    nodes += [
        helper.make_node("Conv", [image, "w0"], ["a"], strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "w1"], ["scores"]),
    ]
    if output == "labels":
        nodes.append(helper.make_node("ArgMax", ["scores"], [output], axis=1, keepdims=0))
    elif logits_layout == "NHWC":
        nodes.append(helper.make_node("Transpose", ["scores"], [output], perm=[0, 2, 3, 1]))
    else:
        nodes.append(helper.make_node("Identity", ["scores"], [output]))
    sides = ["H", "W"] if free else [48, 64]
    shape = ["N", 3, *sides] if layout == "NCHW" else ["N", *sides, 3]
    kind = TensorProto.INT64 if output == "labels" else TensorProto.FLOAT
    outputs = [helper.make_tensor_value_info(output, kind, ["a", "b", "c"] + (["d"] if output != "labels" else []))]
    if extra:
        outputs.append(helper.make_tensor_value_info("b", TensorProto.FLOAT, ["e", "f", "g", "h"]))
    graph = helper.make_graph(nodes, "g", [helper.make_tensor_value_info("image", element, shape)], outputs, weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), str(path))
    return str(path)


def test_hand_made_fcn_is_exported_dense_and_masked(fcn_module, tmp_path, video_data):
    source = foreign_source(f"{fcn_module}:build", Description(), data_classes=CLASSES)
    bundle = exported(source, tmp_path / "a.edgeseg", video_data, sizes_hw=((48, 64),), rhos=("dense", 0.25))
    assert [entry.name for entry in bundle.configurations] == ["build_48x64", "build_48x64_rho0.25-concat"]
    for entry in bundle.configurations:
        assert entry.parity.label_agreement >= 0.999
        assert len(entry.accuracy.miou) == 2
    assert bundle.configurations[1].notes["masked_layers"] == 2


@pytest.mark.parametrize(
    "form",
    [
        {},
        {"layout": "NHWC"},
        {"opset": 11},
        {"free": False},
        {"logits_layout": "NHWC"},
        {"layout": "NHWC", "element": TensorProto.UINT8},
        {"output": "labels"},
    ],
    ids=lambda form: "-".join(map(str, form.values())) or "plain",
)
def test_onnx_file_is_exported_whatever_its_form(tmp_path, video_data, form):
    path = onnx_fcn(tmp_path / "net.onnx", **form)
    bytes_in = form.get("element") == TensorProto.UINT8
    description = (
        Description(colour_order="BGR") if bytes_in else Description(mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))
    )
    source = foreign_source(path, description, data_classes=CLASSES)
    stride = 2 if form.get("output") == "labels" else 1
    bundle = exported(source, tmp_path / "a.edgeseg", video_data, sizes_hw=((48, 64),), labels_strides=(stride,))
    (entry,) = bundle.configurations
    assert entry.parity.label_agreement >= 0.999
    assert (entry.parity.max_logit_error is None) == (form.get("output") == "labels")
    assert entry.accuracy is not None


def test_segformer_is_exported_by_its_logits(tmp_path, video_data, monkeypatch):
    transformers = pytest.importorskip("transformers", reason="Hugging Face transformers is not installed")
    config = transformers.SegformerConfig(
        num_encoder_blocks=4, depths=[1] * 4, hidden_sizes=[8, 16, 16, 32], num_attention_heads=[1, 1, 2, 2],
        decoder_hidden_size=16, num_labels=3, sr_ratios=[4, 2, 1, 1],
    )  # fmt: skip
    torch.manual_seed(0)
    network = transformers.SegformerForSemanticSegmentation(config).eval()
    module = type(sys)("segformer_of_a_user")
    module.build = lambda: network
    monkeypatch.setitem(sys.modules, "segformer_of_a_user", module)
    source = foreign_source("segformer_of_a_user:build", Description(name="segformer"), data_classes=CLASSES)
    bundle = exported(source, tmp_path / "a.edgeseg", video_data, sizes_hw=((64, 96),), labels_strides=(1, 4))
    assert [entry.name for entry in bundle.configurations] == ["segformer_64x96", "segformer_64x96_s4"]
    assert all(entry.parity.label_agreement >= 0.999 for entry in bundle.configurations)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("no_such_package:build", "no_such_package cannot be imported .*ModuleNotFoundError"),
        ("handmade_fcn:make", "handmade_fcn has no 'make' .*it has: .*build"),
        ("handmade_fcn:broken", "handmade_fcn:broken failed .*KeyError.*without arguments"),
        ("handmade_fcn:number", "returned int .*expected a torch.nn.Module"),
        ("handmade_fcn:", "names no factory .*package.module:factory"),
    ],
)
def test_factory_that_does_not_work_says_why(fcn_module, spec, message):
    with pytest.raises(InputError, match=message):
        call_factory(spec)


def test_network_without_known_classes_asks_for_them(fcn_module):
    with pytest.raises(InputError, match=r"classes are not known .*--classes"):
        foreign_source(f"{fcn_module}:build", Description())


def test_number_of_channels_must_be_that_of_the_classes(fcn_module, tmp_path):
    source = foreign_source(f"{fcn_module}:build", Description(classes=CAMVID, size_hw=(48, 64)))
    with pytest.raises(InputError, match=r"one output channel per class .*got 3 channels for 11 classes"):
        exported(source, tmp_path / "a.edgeseg", None)


def test_network_without_convolutions_to_mask_gives_the_reasons(tmp_path, monkeypatch):
    module = type(sys)("one_layer")
    module.network = nn.Conv2d(3, 3, 1)
    monkeypatch.setitem(sys.modules, "one_layer", module)
    source = foreign_source("one_layer:network", Description(classes=CLASSES, size_hw=(48, 64)))
    with pytest.raises(InputError, match=r"no convolution can be masked, so --rho does not apply .*first convolution"):
        exported(source, tmp_path / "a.edgeseg", None, rhos=(0.5,))


def test_mask_of_an_onnx_file_is_refused(tmp_path):
    source = foreign_source(onnx_fcn(tmp_path / "net.onnx"), Description(classes=CLASSES, size_hw=(48, 64)))
    with pytest.raises(InputError, match=r"--rho 0.5 needs a torch module"):
        exported(source, tmp_path / "a.edgeseg", None, rhos=(0.5,))


def test_fixed_size_of_an_onnx_file_is_the_default_and_no_other_is_taken(tmp_path):
    source = foreign_source(onnx_fcn(tmp_path / "net.onnx", free=False), Description(classes=CLASSES))
    assert source.facts.default_size_hw == (48, 64)
    with pytest.raises(InputError, match=r"fixed input height of 48, but --size asks for 96"):
        exported(source, tmp_path / "a.edgeseg", None, sizes_hw=((96, 64),))


@pytest.mark.parametrize(
    ("form", "description", "message"),
    [
        ({"extra": True}, {}, "has 2 outputs: logits, b .*--output NAME"),
        ({}, {"output": "probabilities"}, "has no such output .*it has: logits"),
        ({}, {"input_layout": "NHCW"}, "unknown --input-layout 'NHCW'"),
        ({"layout": "NHWC", "element": TensorProto.UINT8}, {"mean": (0.5, 0.5, 0.5)}, "takes bytes .*--mean and --std"),
    ],
)
def test_onnx_file_that_does_not_fit_its_description_is_refused(tmp_path, form, description, message):
    path = onnx_fcn(tmp_path / "net.onnx", **form)
    with pytest.raises(InputError, match=message):
        foreign_source(path, Description(classes=CLASSES, **description))


def test_labels_of_an_onnx_file_are_not_resized(tmp_path):
    source = foreign_source(
        onnx_fcn(tmp_path / "net.onnx", output="labels"), Description(classes=CLASSES, size_hw=(48, 64))
    )
    with pytest.raises(InputError, match=r"gives labels of 24x32 itself .*use 2"):
        exported(source, tmp_path / "a.edgeseg", None)


def test_file_that_is_not_onnx_is_refused(tmp_path):
    (tmp_path / "net.onnx").write_bytes(b"not a graph")
    with pytest.raises(InputError, match=r"is not a valid ONNX file"):
        foreign_source(str(tmp_path / "net.onnx"), Description(classes=CLASSES))


def test_description_is_read_from_toml(tmp_path):
    path = tmp_path / "net.toml"
    path.write_text('name = "n"\nsize_hw = [48, 64]\nstd = [1, 2, 3]\n[classes]\nnames = ["a", "b"]\nmovable = ["b"]\n')
    description = read_description(path)
    assert (description.name, description.size_hw, description.std) == ("n", (48, 64), (1.0, 2.0, 3.0))
    assert description.classes.movable == ("b",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("colour = 'RGB'", "unknown keys colour .*colour_order"),
        ("mean = [1, 2]", "a value is not readable"),
        ("mean = ", "is not TOML"),
        ("[classes]\nnames = ['a', 'a']", "class names must be unique"),
    ],
)
def test_description_with_a_mistake_is_refused(tmp_path, text, message):
    (tmp_path / "net.toml").write_text(text)
    with pytest.raises(InputError, match=message):
        read_description(tmp_path / "net.toml")


def test_option_that_contradicts_the_file_names_both():
    with pytest.raises(InputError, match=r"--mean and mean in net\.toml contradict each other"):
        Description(mean=(0.0, 0.0, 0.0)).merged(Description(mean=(1.0, 0.0, 0.0)), "net.toml")


def test_classes_are_names_or_a_known_set():
    assert parse_classes("camvid") is CAMVID
    assert parse_classes("road, car").names == ("road", "car")
    with pytest.raises(InputError, match=r"--classes has an empty name"):
        parse_classes("road,,car")
