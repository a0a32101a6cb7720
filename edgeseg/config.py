"""The knobs: `Configuration`, one deployable variant of a network, and `Compensation`, how its labels are moved."""

from dataclasses import asdict, dataclass, fields, replace

from edgeseg.classes import file_name_safe
from edgeseg.errors import InputError
from edgeseg.token_plan import METHODS, TokenPlan

PRECISIONS = ("fp32", "fp16", "int8")
"""Precisions that graphs are exported in."""
STATE_DTYPES = ("fp32", "fp16")
"""What a masked network hands from step to step, whatever its precision."""
CWM_FORMS = ("concat", "split")
"""How a phase graph joins fresh and kept channels: `concat` by Concat, `split` by splitting the next convolution."""
MODES = ("none", "extrapolate", "late-warp", "late-warp+extrapolate")
"""How labels are moved to the present: 1-definitions, Motion compensation."""
FLOWS = ("dis-ultrafast", "dis-fast", "dis-medium", "farneback", "lucas-kanade", "nvidia", "vpi")
"""Optical flows that motion is taken from (`edgeseg.runtime.optical_flow`)."""


@dataclass(frozen=True)
class Configuration:
    """The knobs of one deployable variant. Two configurations of a bundle differ in at least one."""

    network: str
    """Architecture name, or the name given to a network that is not ours."""
    size_hw: tuple[int, int]
    """Input height and width of the graph, in pixels."""
    width: float = 1.0
    """Width multiplier (slimming [C 2.4.3])."""
    rho: float | None = None
    """Overlap of the bi-step masks of a channel-wise masked network, in [0, 1]; None for a dense network [C 2.3]."""
    cwm_form: str | None = None
    """One of `CWM_FORMS` when rho is given."""
    labels_stride: int = 1
    """Labels come at 1 / labels_stride of the input size: 1, or the stride of the logits."""
    precision: str = "fp32"
    """One of `PRECISIONS`."""
    input_frames: int = 1
    """1, or 2 for a network that also sees the frame before."""
    target_offset: int = 0
    """Frames ahead that the network was trained to predict (anticipation)."""
    method: str | None = None
    """What becomes of the tokens that stop, one of `token_plan.METHODS`; None when all tokens of a ViT go through."""
    plan: TokenPlan | None = None
    """Which proportion of the tokens stops after which layer, when a method is given."""
    state_dtype: str = "fp32"
    """One of `STATE_DTYPES`; fp16 halves what a masked network's states take."""

    def __post_init__(self) -> None:
        height, width = self.size_hw
        if height < 32 or width < 32:
            raise InputError(f"size_hw is at least 32 x 32 | got {height} x {width}")
        if not 0 < self.width <= 4:
            raise InputError(f"width lies in (0, 4] | got {self.width}")
        if self.rho is not None and not 0 <= self.rho <= 1:
            raise InputError(f"rho lies in [0, 1] | got {self.rho}")
        if (self.rho is None) != (self.cwm_form is None):
            raise InputError(f"rho and cwm_form go together | got rho {self.rho}, cwm_form {self.cwm_form}")
        if self.cwm_form is not None and self.cwm_form not in CWM_FORMS:
            raise InputError(f"unknown cwm_form {self.cwm_form!r} | known: {', '.join(CWM_FORMS)}")
        if self.labels_stride < 1:
            raise InputError(f"labels_stride is at least 1 | got {self.labels_stride}")
        if self.precision not in PRECISIONS:
            raise InputError(f"unknown precision {self.precision!r} | known: {', '.join(PRECISIONS)}")
        if self.input_frames not in (1, 2):
            raise InputError(f"input_frames is 1 or 2 | got {self.input_frames}")
        if self.target_offset < 0:
            raise InputError(f"target_offset must not be negative | got {self.target_offset}")
        if (self.method is None) != (self.plan is None):
            raise InputError(f"method and plan go together | got method {self.method}, plan {self.plan}")
        if self.method is not None and self.method not in METHODS:
            raise InputError(f"unknown method {self.method!r} | known: {', '.join(METHODS)}")
        if self.state_dtype not in STATE_DTYPES:
            raise InputError(f"unknown state_dtype {self.state_dtype!r} | known: {', '.join(STATE_DTYPES)}")
        if self.state_dtype != "fp32" and self.rho is None:
            raise InputError(
                f"state_dtype {self.state_dtype} is for masked networks | others have no states, or frames of bytes"
            )

    @property
    def stateful(self) -> bool:
        """Whether a step depends on the frames before it."""
        return self.rho is not None or self.input_frames > 1

    @property
    def is_exact(self) -> bool:
        """Whether the graphs compute what the network computes, but for rounding in float32."""
        return self.precision == "fp32" and self.state_dtype == "fp32"

    @property
    def exact(self) -> "Configuration":
        """The same in float32 throughout: what a lower precision is made from and measured against."""
        return replace(self, precision="fp32", state_dtype="fp32")

    @property
    def name(self) -> str:
        """Short name made of the knobs that are not at their default, unique within a bundle; safe as a file name."""
        parts = [self.network, f"{self.size_hw[0]}x{self.size_hw[1]}"]
        if self.width != 1:
            parts.append(f"w{self.width:g}")
        if self.rho is not None:
            parts.append(f"rho{self.rho:g}-{self.cwm_form}")
        if self.plan is not None:
            parts.append(f"{self.method}{self.plan.name}")
        if self.labels_stride != 1:
            parts.append(f"s{self.labels_stride}")
        if self.target_offset:
            parts.append(f"t+{self.target_offset}")
        if self.precision != "fp32":
            parts.append(self.precision)
        if self.state_dtype != "fp32":
            parts.append("st16")
        return file_name_safe("_".join(parts).replace("t+", "t"))

    def as_dict(self) -> dict[str, object]:
        """JSON-ready form, read back by `from_dict`."""
        plan = None if self.plan is None else str(self.plan)
        return {**asdict(self), "size_hw": list(self.size_hw), "plan": plan}

    @classmethod
    def from_dict(cls, values: dict) -> "Configuration":
        """Inverse of `as_dict`.

        Raises:
            InputError: unknown or missing knobs, or a value out of range.
        """
        known = {entry.name for entry in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise InputError(f"unknown knobs {', '.join(unknown)} | known: {', '.join(sorted(known))}")
        try:
            height, width = values["size_hw"]
            plan = None if values.get("plan") is None else TokenPlan.parse(values["plan"])
            return cls(**{**values, "size_hw": (int(height), int(width)), "plan": plan})
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"a configuration is not readable ({error!r})") from error


@dataclass(frozen=True)
class Compensation:
    """How labels are moved to the present. A knob like those of `Configuration`, but of the loop and not of the graphs:
    any compensation goes with any configuration, without a new export.
    """

    mode: str = "late-warp+extrapolate"
    """One of `MODES`."""
    flow: str = "dis-ultrafast"
    """One of `FLOWS`."""
    divisor: int = 2
    """Flow is computed at 1 / divisor of the frame size, or smaller: `optical_flow.flow_size_hw`."""
    mark_invalid: bool = False
    """Pixels hidden in the labels' frame get the ignored value instead of keeping the label at their place."""

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise InputError(f"unknown compensation mode {self.mode!r} | known: {', '.join(MODES)}")
        if self.flow not in FLOWS:
            raise InputError(f"unknown flow {self.flow!r} | known: {', '.join(FLOWS)}")
        if isinstance(self.divisor, bool) or not isinstance(self.divisor, int) or not 1 <= self.divisor <= 16:
            raise InputError(f"the flow's divisor is a whole number from 1 to 16 | got {self.divisor!r}")
        if not isinstance(self.mark_invalid, bool):
            raise InputError(f"mark_invalid is true or false | got {self.mark_invalid!r}")

    @property
    def name(self) -> str:
        """Short and unique: `none`, or mode, flow and divisor, as in `late-warp+extrapolate_dis-ultrafast_d2`."""
        if not self.moves:
            return self.mode
        return f"{self.mode}_{self.flow}_d{self.divisor}" + ("_marked" if self.mark_invalid else "")

    @property
    def moves(self) -> bool:
        """Whether labels are moved at all."""
        return self.mode != "none"

    def as_dict(self) -> dict[str, object]:
        """JSON-ready form, read back by `from_dict`."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict) -> "Compensation":
        """Inverse of `as_dict`; what is missing has its default.

        Raises:
            InputError: an unknown knob, or a value out of range.
        """
        unknown = sorted(set(values) - {entry.name for entry in fields(cls)})
        if unknown:
            raise InputError(f"unknown compensation knobs {', '.join(map(str, unknown))}")
        return cls(**values)


UNCOMPENSATED = Compensation(mode="none")
DEFAULT_COMPENSATIONS = (UNCOMPENSATED, Compensation(), Compensation(divisor=1))
"""Those that an accuracy table is made for unless told otherwise."""
ALL_COMPENSATIONS = (
    *DEFAULT_COMPENSATIONS,
    Compensation(mode="extrapolate"),
    Compensation(mode="late-warp"),
    Compensation(flow="lucas-kanade", divisor=3),
    Compensation(flow="dis-medium", divisor=2),
)
"""What `--compensation all` stands for: every mode, and the default mode with flows from the fastest to a slow one."""


def parse_compensations(text: str) -> tuple[Compensation, ...]:
    """Compensations named by a user: `all`, or names separated by commas, each a mode or a `Compensation.name`.

    Raises:
        InputError: an unknown name; the message lists the known ones.
    """
    if text == "all":
        return ALL_COMPENSATIONS
    return tuple(dict.fromkeys(_parse_compensation(name.strip()) for name in text.split(",")))


def _parse_compensation(name: str) -> Compensation:
    mode, _, rest = name.partition("_")
    flow, _, divisor = rest.partition("_d")
    if mode in MODES and not rest:
        return Compensation(mode=mode)
    if mode in MODES and mode != UNCOMPENSATED.mode and flow in FLOWS and divisor.isdecimal():
        return Compensation(mode=mode, flow=flow, divisor=int(divisor))
    raise InputError(
        f"unknown compensation {name!r} | known: all, {', '.join(MODES)}, and MODE_FLOW_dN with a flow of "
        f"{', '.join(FLOWS)} at 1 / N of the frame size, as in {Compensation().name}"
    )
