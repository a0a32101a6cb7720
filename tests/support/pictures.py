"""An image that tests look at."""

import numpy as np

FRAME_RGB = np.random.default_rng(5).integers(0, 256, (4, 5, 3)).repeat(16, axis=0).repeat(16, axis=1).astype(np.uint8)
"""uint8 `(64, 80, 3)`: 4 x 5 patches, each of a colour of its own."""
