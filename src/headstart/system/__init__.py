"""What talks to the operating system: files, cache, processes, threads, progress, optional packages."""
