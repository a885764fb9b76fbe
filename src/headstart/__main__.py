"""``python -m headstart``: the command line. Called by Python."""

from headstart.interfaces.cli.main import main

if __name__ == "__main__":
    main()
