"""``python -m weightstore`` is ``weightstore``."""

from weightstore.cli import main

if __name__ == "__main__":
    main()
