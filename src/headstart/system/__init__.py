"""Operating-system services: atomic files, locks, cache, processes, threads, progress, optional packages."""
