"""Graph rewrites: one rule a file, whose docstring says `before -> after`."""
