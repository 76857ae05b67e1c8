"""``python -m vidfuse`` is the program ``vidfuse``."""

from vidfuse.cli.app import main

if __name__ == "__main__":
    main()
