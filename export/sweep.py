"""The grid of configurations that one export makes: networks x sizes x rho x form x label stride x token plan x
precision.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from edgeseg.config import CWM_FORMS, PRECISIONS, STATE_DTYPES, Configuration
from edgeseg.errors import InputError
from edgeseg.export.source import Source
from edgeseg.token_plan import METHODS, PUBLISHED_PLANS, TokenPlan

OWN = "own"
"""A value of rho: as the network was trained, dense or masked."""
DENSE = "dense"
"""A value of rho: no masks, whatever the network was trained with."""

LONGEST_NAME = 160
"""Characters of a configuration's name without its precision: what files and engines add must fit into 255 with it."""


@dataclass(frozen=True)
class Grid:
    """What to combine. Names in messages are those of the command line's options."""

    sizes_hw: tuple[tuple[int, int], ...] = ()
    """Input sizes; empty for each network's default, and in a sweep also 3/4 and 1/2 of it."""
    rhos: tuple[float | str, ...] = (OWN,)
    """Numbers in [0, 1], `dense` or `own`."""
    cwm_forms: tuple[str, ...] = ()
    """Some of `CWM_FORMS`; empty for concat."""
    labels_strides: tuple[int, ...] = ()
    """Empty for 1, and in a sweep also the stride of the logits where it is known."""
    methods: tuple[str, ...] = ()
    """Some of `METHODS`; empty for `pause` where there are plans."""
    plans: tuple[TokenPlan | None, ...] = ()
    """Token plans, None for all tokens through all layers; empty for that alone."""
    precisions: tuple[str, ...] = ("fp32",)
    """Some of `PRECISIONS`."""
    state_dtypes: tuple[str, ...] = ("fp32",)
    """Some of `STATE_DTYPES`, for the masked configurations; the others have no such states."""

    def __post_init__(self) -> None:
        for option, values in (
            ("--size", self.sizes_hw),
            ("--rho", self.rhos),
            ("--cwm-form", self.cwm_forms),
            ("--labels-stride", self.labels_strides),
            ("--method", self.methods),
            ("--plan", self.plans),
            ("--precision", self.precisions),
            ("--state-dtype", self.state_dtypes),
        ):
            if len(set(values)) != len(values):
                raise InputError(f"{option} names a value twice | got {', '.join(map(_text, values))}")
        for option, given, known in (
            ("--cwm-form", self.cwm_forms, CWM_FORMS),
            ("--method", self.methods, METHODS),
            ("--precision", self.precisions, PRECISIONS),
            ("--state-dtype", self.state_dtypes, STATE_DTYPES),
        ):
            for value in given:
                if value not in known:
                    raise InputError(f"unknown {option} {value!r} | known: {', '.join(known)}")
        if self.methods and not any(self.plans):
            raise InputError(f"--method {self.methods[0]} without a plan | add --plan 3:0.4,5:0.4, for example")


@dataclass(frozen=True)
class Request:
    """One configuration to export, and the network to make it from."""

    source: Source
    knobs: Configuration


def plan_grid(sources: Sequence[Source], grid: Grid, *, sweep: bool) -> tuple[Request, ...]:
    """All combinations, dense before masked; those that differ in precision alone follow each other, FP32 first.

    Args:
        sweep: whether more than one configuration is wanted. Several precisions need no sweep: each was asked for.

    Raises:
        InputError: options that exclude each other, a network without a size, networks of different classes, a plan
            that does not fit, two configurations that would have the same name, one whose name is too long for a file,
            or several configurations without `sweep`.
    """
    _check_sources(sources)
    requests = []
    for source in sources:
        for size_hw in grid.sizes_hw or _default_sizes(source, sweep):
            for stride in grid.labels_strides or _default_strides(source, sweep):
                for rho, form in _masks(source, grid):
                    knobs = _knobs(source, size_hw, stride, rho, form)
                    requests += [Request(source, planned) for planned in _planned(source, knobs, grid)]
    _check_names(requests)
    if len(requests) > 1 and not sweep:
        raise InputError(
            f"these options make {len(requests)} configurations "
            f"({', '.join(request.knobs.name for request in requests[:4])}{', ...' if len(requests) > 4 else ''}) | "
            "add --sweep to export them all into one bundle, or give one value to each option"
        )
    return tuple(lower for request in requests for lower in _precisions(request, grid, requests))


def _precisions(request: Request, grid: Grid, requests: Sequence[Request]) -> list[Request]:
    """`request` in each precision, with each type of states where it has any."""
    if grid.state_dtypes != ("fp32",) and all(each.knobs.rho is None for each in requests):
        raise InputError(
            f"--state-dtype {','.join(grid.state_dtypes)} is for the states of masked networks, and none of "
            f"{', '.join(each.knobs.name for each in requests[:4])}{', ...' if len(requests) > 4 else ''} has any | "
            "add --rho, or leave --state-dtype out"
        )
    dtypes = sorted(grid.state_dtypes, key=STATE_DTYPES.index) if request.knobs.rho is not None else ["fp32"]
    return [
        replace(request, knobs=replace(request.knobs, precision=precision, state_dtype=dtype))
        for precision in sorted(grid.precisions, key=PRECISIONS.index)
        for dtype in dtypes
    ]


def _masks(source: Source, grid: Grid) -> list[tuple[float | None, str | None]]:
    """(rho, form) pairs, dense first."""
    rhos: list[float | None] = []
    for value in grid.rhos:
        rho = source.facts.rho if value == OWN else None if value == DENSE else float(value)
        if rho not in rhos:
            rhos.append(rho)
    if grid.cwm_forms and all(rho is None for rho in rhos):
        raise InputError(
            f"--cwm-form {grid.cwm_forms[0]} is for masked networks, and {source.facts.origin} is exported dense | "
            "add --rho, or leave --cwm-form out"
        )
    dense = [(None, None)] if None in rhos else []
    masked = [(rho, form) for rho in rhos if rho is not None for form in grid.cwm_forms or (CWM_FORMS[0],)]
    return [*dense, *masked]


def _knobs(source: Source, size_hw: tuple[int, int], stride: int, rho: float | None, form: str | None) -> Configuration:
    facts = source.facts
    return Configuration(
        network=facts.network,
        size_hw=size_hw,
        width=facts.width,
        rho=rho,
        cwm_form=form,
        labels_stride=stride,
        input_frames=facts.input_frames,
        target_offset=facts.target_offset,
    )


def parse_plans(texts: Sequence[str]) -> tuple[TokenPlan | None, ...]:
    """Plans as written on the command line: `3:0.4,5:0.4`, `none`, or `published`, those of [C table 3.1].

    Raises:
        InputError: not readable, or out of range.
    """
    plans: list[TokenPlan | None] = []
    for text in texts:
        plans += PUBLISHED_PLANS if text == "published" else [None if text == "none" else TokenPlan.parse(text)]
    return tuple(plans)


def _planned(source: Source, knobs: Configuration, grid: Grid) -> list[Configuration]:
    """`knobs` with each method and plan, first without where that is asked for.

    Raises:
        InputError: the network takes no plans, or a plan does not fit its layers or the tokens of this size.
    """
    plans = [plan for plan in grid.plans if plan is not None]
    if plans and not source.facts.takes_plans:
        raise InputError(
            f"--plan is for networks on a plain ViT, and {source.facts.origin} has no tokens that could stop | "
            "leave --plan out"
        )
    if plans:
        stack = source.token_stack(knobs.size_hw)
        for plan in plans:
            plan.check_stops(stack.tokens, stack.layers)
    whole = [knobs] if None in grid.plans or not plans else []
    return whole + [
        replace(knobs, method=method, plan=plan) for method in grid.methods or (METHODS[0],) for plan in plans
    ]


def sweep_sizes(size_hw: tuple[int, int], multiple: int = 4) -> list[tuple[int, int]]:
    """`size_hw`, then 3/4 and 1/2 of it as multiples of 4, so that labels at stride 4 cover the image exactly, or of
    another `multiple`."""
    step = 4 * multiple
    scaled = [size_hw, *(tuple(side * part // step * multiple for side in size_hw) for part in (3, 2))]
    return [(height, width) for height, width in scaled if min(height, width) >= 32]


def _default_sizes(source: Source, sweep: bool) -> list[tuple[int, int]]:
    size_hw = source.facts.default_size_hw
    if size_hw is None:
        raise InputError(
            f"{source.facts.origin}: the input size is not known | add --size HxW, for example --size 360x480"
        )
    if not sweep or not source.facts.has_free_size:
        return [size_hw]
    return sweep_sizes(size_hw, source.facts.size_multiple)


def _default_strides(source: Source, sweep: bool) -> list[int]:
    stride = source.facts.logits_stride
    return [1, stride] if sweep and stride is not None and stride != 1 else [1]


def _check_sources(sources: Sequence[Source]) -> None:
    if not sources:
        raise InputError("nothing to export | give a checkpoint, package.module:factory or model.onnx")
    first = sources[0].facts
    for source in sources[1:]:
        if source.facts.classes.names != first.classes.names:
            raise InputError(
                f"{source.facts.origin} and {first.origin} have different classes | "
                f"got {len(source.facts.classes)} and {len(first.classes)} | "
                "a bundle has one set of classes: export them into bundles of their own"
            )


def _check_names(requests: Sequence[Request]) -> None:
    origins: dict[str, str] = {}
    for request in requests:
        name, origin = request.knobs.name, request.source.facts.origin
        if name in origins:
            raise InputError(
                f"{origins[name]} and {origin} both make the configuration {name} | they differ in no knob: "
                "export them into bundles of their own"
            )
        origins[name] = origin
        if len(name) > LONGEST_NAME:
            raise InputError(
                f"a configuration's name is too long for files | got {len(name)} characters ({name}), expected at most "
                f"{LONGEST_NAME} | give the proportions of --plan fewer digits"
            )


def _text(value: object) -> str:
    return "x".join(map(str, value)) if isinstance(value, tuple) else str(value)
