"""What a network is: frozen specifications, equal and hashable by value."""
