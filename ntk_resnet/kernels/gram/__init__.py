"""Gram matrices: planned, made in tiles, stored, and as operators."""
