# Comes before any other library: see there.
import edgeseg  # noqa: F401
