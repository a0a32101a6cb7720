"""Runs the graphs of a variant step by step in plain numpy, any inner tensor in sight. For checking, not for speed."""

from collections.abc import Sequence

import numpy as np
import onnxruntime

from edgeseg.export.graph_edit import with_outputs
from edgeseg.export.variant import Variant
from edgeseg.runtime.backends.int8_products import keep_products_exact


class GraphRunner:
    """The graphs of `variant` through ONNX Runtime, in the order of their roles, with state handed on by its links.

    Args:
        watched: inner tensors to return besides the outputs, where a graph has them.
    """

    def __init__(self, variant: Variant, watched: Sequence[str] = ()) -> None:
        self.variant = variant
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = 1
        keep_products_exact(options)
        self._sessions = {
            role: onnxruntime.InferenceSession(
                with_outputs(graph, watched).SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
            for role, graph in variant.graphs.items()
        }
        self.reset()

    def reset(self) -> None:
        """Forget all state."""
        self.step_index = 0
        self._state: dict[tuple[str, str], np.ndarray] = {}

    @property
    def role(self) -> str:
        """Role that runs next."""
        return self.variant.role_at(self.step_index)

    def feeds(self, frame_rgb: np.ndarray) -> dict[str, np.ndarray]:
        """All inputs of the role that runs next, by name: uint8 `(H, W, 3)` as image, and the states as they are."""
        return {
            entry.name: frame_rgb[None] if entry.name == "image" else self._state[self.role, entry.name]
            for entry in self._sessions[self.role].get_inputs()
        }

    def step(self, frame_rgb: np.ndarray) -> dict[str, np.ndarray]:
        """Run the next role on uint8 `(H, W, 3)`; all outputs and watched tensors by name."""
        role, feeds = self.role, self.feeds(frame_rgb)
        session = self._sessions[role]
        names = [entry.name for entry in session.get_outputs()]
        outputs = dict(zip(names, session.run(names, feeds), strict=True))
        for link in self.variant.links:
            if link.from_role == role:
                self._state[link.to_role, link.input] = outputs[link.output]
        self.step_index += 1
        return outputs
