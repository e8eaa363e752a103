"""`python -m eventkit`: the same as the command `eventkit`."""

from eventkit.cli import main

main()
