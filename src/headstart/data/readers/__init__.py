"""Readers: named datasets, folders, tables and archives become a Dataset."""
