"""`python -m gptplan` is the same program as `gptplan`."""

from gptplan.start import start

if __name__ == "__main__":
    start()
