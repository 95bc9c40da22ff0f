"""Read exported files with the engines' own packages; each file runs in an environment of its own, without gptplan."""
