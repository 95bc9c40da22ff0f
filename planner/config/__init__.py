"""What a user chose: frozen sections of a `RunConfig`, validated; no arithmetic."""
