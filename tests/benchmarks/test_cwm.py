"""The CWM benchmark, as a user starts it, at a small size."""

import json
from pathlib import Path

from benchmarks.cwm import main


def test_report_compares_both_forms_with_the_dense_graph(tmp_path: Path) -> None:
    small = {"--width": "0.25", "--rho": "0", "--align": "1", "--threads": "1", "--rounds": "1", "--warmup": "0"}
    main(["--size", "64", "96", *(word for option in small.items() for word in option), "--out", str(tmp_path)])
    rows = json.loads((tmp_path / "cwm.json").read_text())["rows"]
    assert [(row["graph"], row["form"]) for row in rows] == [("dense", ""), ("rho 0.0", "concat"), ("rho 0.0", "split")]
    assert all(0.5 < row["MACs ratio"] < 0.7 for row in rows[1:])
