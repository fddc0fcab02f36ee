"""Empirical kernels of any finite network."""
