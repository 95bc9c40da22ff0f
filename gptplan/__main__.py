"""`python -m gptplan` is the same program as `gptplan`."""

from gptplan.app import main

if __name__ == "__main__":
    main()
