"""`python -m infinito` is the console script `infinito`."""

from infinito.interrupt import at_once

with at_once():
    from infinito.cli import main

if __name__ == "__main__":
    main()
