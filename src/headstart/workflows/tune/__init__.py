"""Tuning: a search over everything that can be selected, with an estimate of what the search is worth."""
