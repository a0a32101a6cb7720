import pytest

from edgeseg.errors import InputError
from edgeseg.export.sweep import Grid, plan_grid


def names(requests):
    return [request.knobs.name for request in requests]


def test_grid_is_the_product_dense_first(make_source):
    grid = Grid(((48, 64), (32, 48)), (0.25, "dense", 0.0), ("concat", "split"), (1, 2))
    requests = plan_grid([make_source()], grid, sweep=True)
    assert len(requests) == 2 * 2 * 5
    assert names(requests)[:3] == ["tiny_48x64", "tiny_48x64_rho0.25-concat", "tiny_48x64_rho0.25-split"]


def test_sweep_alone_takes_three_sizes_and_both_strides(make_source):
    requests = plan_grid([make_source(default_size_hw=(96, 128))], Grid(), sweep=True)
    assert names(requests) == [
        f"tiny_{size}{stride}" for size in ("96x128", "72x96", "48x64") for stride in ("", "_s2")
    ]


def test_own_mask_of_the_network_is_the_default(make_source):
    assert names(plan_grid([make_source(rho=0.25)], Grid(), sweep=False)) == ["tiny_48x64_rho0.25-concat"]


def test_several_configurations_need_the_option_sweep(make_source):
    with pytest.raises(InputError, match=r"these options make 2 configurations .*add --sweep"):
        plan_grid([make_source()], Grid(labels_strides=(1, 2)), sweep=False)


def test_form_without_masks_names_both_options(make_source):
    with pytest.raises(InputError, match=r"--cwm-form split is for masked networks, and tiny\.py .*--rho"):
        plan_grid([make_source()], Grid(cwm_forms=("split",)), sweep=False)


def test_same_configuration_of_two_networks_names_both(make_source):
    with pytest.raises(InputError, match=r"tiny\.py and tiny\.py both make the configuration tiny_48x64"):
        plan_grid([make_source(), make_source()], Grid(), sweep=True)


def test_network_without_a_size_asks_for_one(make_source):
    with pytest.raises(InputError, match=r"input size is not known .*--size HxW"):
        plan_grid([make_source(default_size_hw=None)], Grid(), sweep=False)


def test_value_given_twice_is_refused():
    with pytest.raises(InputError, match=r"--size names a value twice .*48x64, 48x64"):
        Grid(((48, 64), (48, 64)))


def test_precisions_need_no_sweep_and_follow_each_other(make_source):
    requests = plan_grid([make_source()], Grid(precisions=("int8", "fp32", "fp16")), sweep=False)
    assert names(requests) == ["tiny_48x64", "tiny_48x64_fp16", "tiny_48x64_int8"]


def test_states_are_multiplied_for_masked_configurations_alone(make_source):
    grid = Grid(rhos=("dense", 0.0), labels_strides=(1,), sizes_hw=((48, 64),), state_dtypes=("fp16", "fp32"))
    assert names(plan_grid([make_source()], grid, sweep=True)) == [
        "tiny_48x64", "tiny_48x64_rho0-concat", "tiny_48x64_rho0-concat_st16",
    ]  # fmt: skip


def test_unknown_form_lists_the_known_ones():
    with pytest.raises(InputError, match=r"unknown --cwm-form 'join' .*concat, split"):
        Grid(cwm_forms=("join",))
