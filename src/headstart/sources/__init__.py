"""Pretrained networks as frozen functions from images to features."""
