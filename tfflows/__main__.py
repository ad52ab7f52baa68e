"""`python -m tfflows`: the command `tfflows`."""

from tfflows_cli import main

main()
