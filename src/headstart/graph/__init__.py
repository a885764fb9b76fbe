"""Frozen networks as graphs: built in build.py, run in runtime.py. Imports nothing until used."""
