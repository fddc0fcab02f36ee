"""Kernels of convolutional networks, between images."""
