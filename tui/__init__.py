"""The terminal planner: the same library as the command, live."""
