"""Weights that other code wrote: read as tensors only, renamed, checked, and put into a network of ours."""
