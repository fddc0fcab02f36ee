"""Activations: names, objects, and their duals."""
