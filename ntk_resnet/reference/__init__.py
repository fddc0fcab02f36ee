"""neural-tangents, and specifications as its networks."""
