"""The pausing benchmark's table."""

from benchmarks.pausing import table


def test_table_holds_the_ratio_of_times_against_that_of_macs() -> None:
    seconds = {"none": [0.010, 0.012, 0.011], "3:0.4": [0.006, 0.007, 0.008], "5:0.8": [0.009, 0.009, 0.009]}
    rows = {row["plan"]: row for row in table(seconds, {"none": 100, "3:0.4": 60, "5:0.8": 80}, threads=1)}
    assert (rows["3:0.4"]["ratio (min)"], rows["3:0.4"]["MACs ratio"]) == (0.6, 0.6)
    assert (rows["3:0.4"]["within 1.05"], rows["3:0.4"]["throughput"]) == ("yes", "+67 %")
    assert (rows["5:0.8"]["ratio / MACs ratio"], rows["5:0.8"]["within 1.05"]) == (1.125, "no")
