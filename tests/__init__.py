"""The tests mirror the packages. Child processes: `tests/processes.py` (signals, terminals, none outlives its test)."""
