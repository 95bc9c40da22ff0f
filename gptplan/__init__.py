"""gptplan: plan a GPT training run, run it, and see every prediction beside what really happened."""

__version__ = "0.1.0"
