"""Figures of kernels, mirrors and reconstructions. Matplotlib is imported when the first figure is drawn."""
