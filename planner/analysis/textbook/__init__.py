"""Calculations that a training engineer does by hand, each callable and explained: `gptplan explain --list`.

One file per topic; importing `planner.analysis.textbook.catalogue` registers them. A calculation is a plain function
over named numbers and vectors, called with floats for its answer and with sympy symbols for its formula.
"""
