"""Results on disk, where they come from, and what is kept between runs."""
