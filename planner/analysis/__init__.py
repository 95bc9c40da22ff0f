"""Questions asked of a plan."""
