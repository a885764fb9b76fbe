"""The page on which anyone teaches classes by example."""
