"""Tuning: a search over everything that can be selected, with an unbiased estimate of its accuracy."""
