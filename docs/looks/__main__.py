"""`python -m docs.looks`."""

from docs.looks import main

main()
