"""Data sets, bundled, published and a user's own."""
