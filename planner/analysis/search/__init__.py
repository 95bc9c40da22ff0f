"""Search of layouts: the space, a quick account of each, the ranking."""
