"""edgeseg: video segmentation on the device, picked by latency-aware mIoU."""

import os

__version__ = "0.1.0"

# The wheels of ONNX Runtime (1.31, for one) report what they run to their maker, and keep a device id and reports not
# yet sent in the user's cache. The library looks once, when it is loaded, and whatever of ours loads it comes after.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
