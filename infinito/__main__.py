"""`python -m infinito` is the console script `infinito`."""

from infinito.cli import main

if __name__ == "__main__":
    main()
