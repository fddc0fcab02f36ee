"""Dual activations, one way of computing them a module; public: `activations`."""
