"""Closed forms of a specification: the kernels of its infinitely wide networks."""
