"""Seeded inputs for every door of the program, and what may come of each: an answer, or one message."""
