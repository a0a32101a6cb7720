import json
from dataclasses import replace
from pathlib import Path

import pytest

from edgeseg.accuracy import Accuracy, CompensatedAccuracy
from edgeseg.bundle import (
    Bundle,
    BundleConfiguration,
    FileRecord,
    Graph,
    Parity,
    StateLink,
    configuration_digest,
    file_sha256,
)
from edgeseg.classes import CAMVID
from edgeseg.config import UNCOMPENSATED, Compensation, Configuration
from edgeseg.errors import ArtifactError, InputError
from edgeseg.manifest import manifest_dict, save_manifest


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """A bundle on disk with one stateful configuration; its graphs are three bytes of text."""
    root = tmp_path / "small.edgeseg"
    root.mkdir()
    files = {}
    for name in ("init.onnx", "phase0.onnx", "phase1.onnx", "weights.bin"):
        (root / name).write_text(name[:3])
        files[name] = FileRecord(file_sha256(root / name), 3)
    graphs = {role: Graph(f"{role}.onnx", ("weights.bin",), 10, 5) for role in ("init", "phase0", "phase1")}
    entry = BundleConfiguration(
        knobs=Configuration("net", (64, 96), rho=0.0, cwm_form="concat"),
        graphs=graphs,
        first="init",
        then=("phase1", "phase0"),
        links=(StateLink("init", "state_0_out", "phase1", "state_0_in"),),
        digest=configuration_digest(graphs, files),
        parity=Parity("street", 20, 1.0, 1e-6),
        accuracy=Accuracy("street", "val", 15.0, 100, (64, 96), (0.5, 0.4), (0.3, None), (0.5,) * 10 + (None,)),
    )
    made = Bundle(root, "small", CAMVID, "RGB", (entry,), files, {"edgeseg": "0"}, "2026-01-01T00:00:00+00:00")
    (root / "manifest.json").write_text(json.dumps(manifest_dict(made)))
    return made


def test_bundle_survives_the_round_trip_through_its_manifest(bundle):
    assert Bundle.open(bundle.root) == bundle


def test_roles_follow_the_sequence_of_the_manifest(bundle):
    entry = bundle.configurations[0]
    assert [entry.role_at(step) for step in range(5)] == ["init", "phase1", "phase0", "phase1", "phase0"]


def test_verify_accepts_untouched_files(bundle):
    bundle.verify()


def test_file_is_refused_when_one_byte_changed(bundle):
    (bundle.root / "phase0.onnx").write_text("phO")
    with pytest.raises(ArtifactError, match=r"phase0\.onnx is damaged \| its SHA-256"):
        bundle.verify()


def test_file_is_refused_when_truncated(bundle):
    (bundle.root / "weights.bin").write_text("we")
    with pytest.raises(ArtifactError, match="got 2 bytes, expected 3"):
        bundle.verify()


def test_file_is_refused_when_missing(bundle):
    (bundle.root / "weights.bin").unlink()
    with pytest.raises(ArtifactError, match="is missing"):
        bundle.verify()


def test_manifest_is_refused_when_one_figure_changed(bundle):
    path = bundle.root / "manifest.json"
    path.write_text(path.read_text().replace("0.4", "0.9"))
    with pytest.raises(ArtifactError, match="changed after it was written"):
        Bundle.open(bundle.root)


def edit(bundle: Bundle, change) -> None:
    """Change the manifest and give it the right checksum again, as an attacker would."""
    from edgeseg import manifest as module

    path = bundle.root / "manifest.json"
    values = json.loads(path.read_text())
    change(values)
    values["checksum"] = module._checksum(values)
    path.write_text(json.dumps(values))


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/../../b", "..\\b", "C:x", ""])
def test_file_name_is_refused_when_it_leaves_the_bundle(bundle, name):
    edit(bundle, lambda values: values["files"].update({name: {"sha256": "0", "bytes": 1}}))
    with pytest.raises(ArtifactError, match="leaves the bundle"):
        Bundle.open(bundle.root)


def test_file_is_refused_when_it_links_out_of_the_bundle(bundle, tmp_path):
    (tmp_path / "outside").write_text("out")
    (bundle.root / "weights.bin").unlink()
    (bundle.root / "weights.bin").symlink_to(tmp_path / "outside")
    with pytest.raises(ArtifactError, match="link out of the bundle"):
        Bundle.open(bundle.root)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda values: values.update(format_version=[2, 0]), "format version"),
        (lambda values: values.update(format="other"), "not an edgeseg manifest"),
        (lambda values: values.update(configurations=[]), "no configurations"),
        (lambda values: values["configurations"].append(values["configurations"][0]), "same name"),
        (lambda values: values["configurations"][0].update(digest="0"), "digest is not that of its files"),
        (
            lambda values: values["configurations"][0]["sequence"].update(then=["phase2"]),
            "roles without a graph: phase2",
        ),
        (lambda values: values["files"].pop("weights.bin"), "files without a hash: weights.bin"),
        (lambda values: values["configurations"][0]["knobs"].update(rho=7), "rho lies in"),
        (lambda values: values["input"].update(colour_order="GBR"), "unknown colour order"),
        (lambda values: values.pop("classes"), "is damaged"),
    ],
)
def test_manifest_is_refused_when_it_contradicts_itself(bundle, change, message):
    edit(bundle, change)
    with pytest.raises(ArtifactError, match=message):
        Bundle.open(bundle.root)


@pytest.mark.parametrize("content", ["", "[]", "{", "nul", "\x00\x01"])
def test_manifest_is_refused_when_it_is_not_one(bundle, content):
    (bundle.root / "manifest.json").write_text(content)
    with pytest.raises(ArtifactError, match=r"manifest\.json"):
        Bundle.open(bundle.root)


def test_missing_bundle_and_folder_without_manifest_are_told_apart(tmp_path):
    with pytest.raises(ArtifactError, match="no bundle at"):
        Bundle.open(tmp_path / "nowhere")
    with pytest.raises(ArtifactError, match="is not a bundle"):
        Bundle.open(tmp_path)


def test_unknown_configuration_lists_the_known_ones(bundle):
    with pytest.raises(ArtifactError, match=r"no configuration 'x' \| it has: net_64x96_rho0-concat"):
        bundle.configuration("x")


def test_digest_changes_with_the_content_of_a_graph(bundle):
    files = {**bundle.files, "init.onnx": FileRecord("other", 3)}
    entry = bundle.configurations[0]
    assert configuration_digest(entry.graphs, files) != entry.digest


MOVED = CompensatedAccuracy(Compensation(), (0.5, 0.45), (0.3, 0.2))


def with_moved_labels(bundle: Bundle) -> Bundle:
    entry = bundle.configurations[0]
    accuracy = entry.accuracy.with_compensated([MOVED])
    return replace(bundle, configurations=(replace(entry, accuracy=accuracy),))


def test_compensated_tables_survive_the_round_trip_when_saved_into_a_bundle(bundle):
    save_manifest(with_moved_labels(bundle))
    assert Bundle.open(bundle.root) == with_moved_labels(bundle)


def test_bundle_is_the_measured_one_still_when_tables_are_added(bundle):
    assert with_moved_labels(bundle).digest == bundle.digest


def test_manifest_is_read_when_it_is_from_before_there_was_compensation(bundle):
    edit(bundle, lambda values: values["configurations"][0]["accuracy"].pop("compensated"))
    assert Bundle.open(bundle.root) == bundle


def test_compensated_table_is_replaced_when_it_is_added_again(bundle):
    better = replace(MOVED, miou=(0.5, 0.47))
    accuracy = with_moved_labels(bundle).configurations[0].accuracy.with_compensated([better])
    assert accuracy.compensated == (better,)


def test_candidates_are_configurations_with_each_compensation_that_was_scored(bundle):
    name = bundle.configurations[0].name
    found = {entry.name: entry.table.miou for entry in with_moved_labels(bundle).candidates()}
    assert found == {name: (0.5, 0.4), f"{name} late-warp+extrapolate_dis-ultrafast_d2": (0.5, 0.45)}


def test_candidate_has_no_table_when_its_compensation_was_not_scored(bundle):
    plain, moved = bundle.candidates([UNCOMPENSATED, Compensation("late-warp")])
    assert plain.table is not None
    assert moved.table is None


def test_compensated_table_is_refused_when_nothing_moves():
    with pytest.raises(InputError, match="moves labels"):
        CompensatedAccuracy(UNCOMPENSATED, (0.5,), (None,))
