"""Engines that train a network: NumPy from scratch, and PyTorch."""
