"""Readers: named sets, folders, tables and archives become a Dataset."""
