"""A configuration: one deployable variant of a network, named by its knobs."""

from dataclasses import asdict, dataclass, fields

from edgeseg.classes import file_name_safe
from edgeseg.errors import InputError

PRECISIONS = ("fp32",)
"""Precisions that graphs are exported in."""
CWM_FORMS = ("concat", "split")
"""How a phase graph joins fresh and kept channels: `concat` by Concat, `split` by splitting the next convolution."""


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

    @property
    def stateful(self) -> bool:
        """Whether a step depends on the frames before it."""
        return self.rho is not None or self.input_frames > 1

    @property
    def name(self) -> str:
        """Short name made of the knobs that are not at their default, unique within a bundle; safe as a file name."""
        parts = [self.network, f"{self.size_hw[0]}x{self.size_hw[1]}"]
        if self.width != 1:
            parts.append(f"w{self.width:g}")
        if self.rho is not None:
            parts.append(f"rho{self.rho:g}-{self.cwm_form}")
        if self.labels_stride != 1:
            parts.append(f"s{self.labels_stride}")
        if self.target_offset:
            parts.append(f"t+{self.target_offset}")
        if self.precision != "fp32":
            parts.append(self.precision)
        return file_name_safe("_".join(parts).replace("t+", "t"))

    def as_dict(self) -> dict[str, object]:
        """JSON-ready form, read back by `from_dict`."""
        return {**asdict(self), "size_hw": list(self.size_hw)}

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
            return cls(**{**values, "size_hw": (int(height), int(width))})
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"a configuration is not readable ({error!r})") from error
