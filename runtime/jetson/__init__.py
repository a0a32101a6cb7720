"""NVIDIA Jetson boards: power mode, clocks, heat and power, read while something is measured. Nothing is changed."""
