"""Kernels on the sphere: Mercer eigenvalues to any precision."""
