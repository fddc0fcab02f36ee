"""Finite networks in training, beside what the kernel predicts."""
