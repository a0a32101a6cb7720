"""`python -m edgeseg`: the command line."""

from edgeseg.cli import main

main()
