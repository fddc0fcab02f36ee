"""Both kernels as functions of the angle, at any depth."""
