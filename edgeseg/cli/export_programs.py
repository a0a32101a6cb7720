"""What `edgeseg export` and `edgeseg info` tell about programs beside the graphs."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgeseg.bundle import BundleConfiguration


def programs_text(entries: Sequence["BundleConfiguration"]) -> str:
    """Forms, how many configurations have them, and in how many of the pixels labels agree; empty without programs."""
    parts = []
    for form in dict.fromkeys(form for entry in entries for form in entry.programs):
        having = [entry.programs[form] for entry in entries if form in entry.programs]
        agreements = [each.parity.label_agreement for each in having if each.parity]
        agreeing = f", labels agree on {100 * min(agreements):.3f} %" if agreements else ""
        parts.append(f"{form} for {len(having)} of {len(entries)}{agreeing}")
    return "; ".join(parts)
