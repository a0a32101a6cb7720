"""Token plans: after which layers of a plain ViT how many tokens stop, for pausing, early exit and pruning alike."""

from dataclasses import dataclass

from edgeseg.errors import InputError

METHODS = ("pause", "pause-random", "early-exit", "prune")
"""What becomes of the tokens that stop: they wait for the decoder (by entropy, or by lot as the baseline) [C 3], have
the auxiliary decoder's label [C 3.I], or have it except for context tokens that go on [Z 5]."""

TOPK_LIMIT = 3840
"""Largest K of TensorRT's TopK, up to 11.1 at least: more tokens are ranked in other ways."""


@dataclass(frozen=True)
class TokenPlan:
    """After layer l (from 1), the proportion of the tokens still running that stops."""

    cuts: tuple[tuple[int, float], ...]
    """(layer, proportion) pairs, layers rising, proportions in (0, 1)."""

    def __post_init__(self) -> None:
        if not self.cuts:
            raise InputError("a plan without a layer | expected such as 3:0.4,5:0.4")
        for layer, proportion in self.cuts:
            if isinstance(layer, bool) or not isinstance(layer, int) or layer < 1:
                raise InputError(f"plan {self}: layer out of range | got {layer}, expected whole numbers from 1")
            if not 0 < proportion < 1:
                why = ": no token would be left" if proportion >= 1 else ""
                raise InputError(
                    f"plan {self}: proportion out of range | got {_in_full(proportion)} after layer {layer}, expected "
                    f"more than 0 and less than 1{why}"
                )
        layers = [layer for layer, _ in self.cuts]
        if layers != sorted(set(layers)):
            raise InputError(f"plan {self}: layers do not rise | got {layers}, expected each once, in order")

    @classmethod
    def parse(cls, text: str) -> "TokenPlan":
        """The plan written `3:0.4,5:0.4`: after layer 3, 40 % of the tokens stop, after layer 5, 40 % of the others.

        Raises:
            InputError: not readable, or a layer or proportion is out of range.
        """
        cuts = []
        for part in text.split(","):
            layer, separator, proportion = part.partition(":")
            try:
                if not separator:
                    raise ValueError("no colon")
                cuts.append((int(layer), float(proportion)))
            except ValueError as error:
                raise InputError(
                    f"plan {text!r} is not readable | got {part.strip()!r}, expected LAYER:PROPORTION, as in "
                    "3:0.4,5:0.4"
                ) from error
        return cls(tuple(cuts))

    def __str__(self) -> str:
        return ",".join(f"{layer}:{_in_full(proportion)}" for layer, proportion in self.cuts)

    @property
    def name(self) -> str:
        """Safe in file names: `3-0.4_5-0.4`."""
        return str(self).replace(":", "-").replace(",", "_")

    def counts(self, tokens: int, layers: int) -> dict[int, int]:
        """Tokens that go on after each layer of the plan: of n, `n - int(proportion * n)` [C 3.2].

        Args:
            tokens: that the encoder starts with, without the class token.
            layers: of the encoder. After the last one there is nothing to go on to.

        Raises:
            InputError: a layer out of range, or no token is left.
        """
        running: dict[int, int] = {}
        for layer, proportion in self.cuts:
            if layer >= layers:
                raise InputError(
                    f"plan {self}: layer out of range | got {layer}, expected 1 to {layers - 1} for an encoder of "
                    f"{layers} layers"
                )
            tokens -= int(proportion * tokens)
            if tokens < 1:
                raise InputError(f"plan {self} leaves no token after layer {layer} | use smaller proportions")
            running[layer] = tokens
        return running

    def check_stops(self, tokens: int, layers: int) -> None:
        """Refuse a layer of the plan after which no token stops: a ranking for nothing. Arguments as of `counts`.

        Raises:
            InputError: such a layer, or what `counts` refuses.
        """
        for layer, going in self.counts(tokens, layers).items():
            if going == tokens:
                raise InputError(
                    f"plan {self} stops none of {tokens} tokens after layer {layer} | use a proportion above "
                    f"1/{tokens} there, or leave that layer out"
                )
            tokens = going


def _in_full(proportion: float) -> str:
    """The shortest text that reads back as the same number: rounded, it would be of another plan."""
    return repr(float(proportion)).removesuffix(".0")


PUBLISHED_PLANS: tuple[TokenPlan, ...] = tuple(
    TokenPlan(tuple((layer, proportion) for layer in layers))
    for layers, proportions in (
        ((3,), (0.2, 0.4, 0.6)),
        ((5,), (0.2, 0.4, 0.6, 0.8)),
        ((3, 5), (0.2, 0.3, 0.4)),
        ((3, 5, 7), (0.2, 0.3, 0.4)),
    )
    for proportion in proportions
)
"""[C table 3.1]."""
