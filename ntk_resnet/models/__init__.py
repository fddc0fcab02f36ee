"""Flax models of anyone's: as functions, with a loss, as programs."""
