"""Scores of label maps: confusion, boundaries, latency awareness. numpy and OpenCV only: the runtime uses them too."""
