"""Bytes of one device by component and phase."""
