"""The dashboards of tokenglass, as Python: each module says one thing, generate.py writes it down as JSON."""
