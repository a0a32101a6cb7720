"""`python -m edgeseg`: the command line."""

from edgeseg.cli.process import run

run()
