"""What kernels say: degeneracy, spectra, regression, learning curves."""
