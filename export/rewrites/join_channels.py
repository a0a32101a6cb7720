"""fresh x[:, :a], state x[:, a:] -> Concat(fresh, state) = x

The last resort, for operators that mix channels and cannot be split; and its inverse, a Slice, for maps that cannot be
made in parts.
"""

from collections.abc import Sequence

import numpy as np

from edgeseg.export.rewrites.graph_writer import GraphWriter


def join_channels(writer: GraphWriter, parts: Sequence[str], output: str) -> str:
    """Join consecutive channel ranges; a single one stays what it is."""
    if len(parts) == 1:
        return parts[0]
    return writer.add("Concat", parts, output, axis=1)


def slice_channels(writer: GraphWriter, name: str, start: int, stop: int, output: str) -> str:
    """Channels `[start, stop)` of `name`."""
    bounds = [
        writer.constant(f"channels.{kind}.{value}", np.array([value], np.int64))
        for kind, value in (("start", start), ("stop", stop), ("axis", 1))
    ]
    return writer.add("Slice", [name, *bounds], output)
