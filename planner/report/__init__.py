"""Plans and runs as text for people."""
