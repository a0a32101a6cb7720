"""edgeseg: video segmentation on the device, picked by latency-aware mIoU."""

__version__ = "0.1.0"
