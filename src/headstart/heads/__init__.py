"""Classifiers on features, one module each, all with the contract in base.py; names in registry.py."""
