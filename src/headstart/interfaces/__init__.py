"""The command line, the Python interface, the estimator, the HTTP server and the teaching page."""
