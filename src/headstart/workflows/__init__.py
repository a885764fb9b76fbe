"""What a user asks for, one package per verb: the command line, Python and recipes call the same."""
