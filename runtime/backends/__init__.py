"""What runs graphs: one module per backend, found by the device string."""
