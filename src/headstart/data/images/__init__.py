"""From image files and arrays to the pixels that a network takes: decode, prepare, augment."""
