"""Claims of papers, measured and judged."""
