"""``python -m socketcluster`` is the command ``socketcluster``."""

from socketcluster.cli import main

if __name__ == "__main__":
    main(prog_name="socketcluster")
