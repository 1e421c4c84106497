"""`python -m taidpt`, the same as the `taidpt` command."""

from taidpt.cli import main

main()
