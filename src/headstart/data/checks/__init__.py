"""Checks: exact and near copies, broken files, images in two splits, images that a model learned from."""
