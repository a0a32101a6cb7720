from edgeseg.errors import first_line, one_line

SAID = RuntimeError("[ONNXRuntimeError] : 6 : cannot run:\n  the graph is damaged\n")


def test_first_line_leaves_out_the_code_of_onnxruntime_and_what_follows():
    assert first_line(SAID) == "cannot run:"


def test_one_line_joins_all_lines():
    assert one_line(SAID) == "cannot run: the graph is damaged"


def test_exception_is_named_when_it_says_nothing():
    assert (first_line(AssertionError()), one_line(AssertionError())) == ("AssertionError()", "AssertionError()")
