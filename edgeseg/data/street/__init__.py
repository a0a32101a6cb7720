"""The procedural dash-cam simulator `street`."""

from edgeseg.data.street.video import SPLIT_SEEDS, StreetDataset, StreetVideo

__all__ = ["SPLIT_SEEDS", "StreetDataset", "StreetVideo"]
