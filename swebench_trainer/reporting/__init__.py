"""Reports of a run: rates with intervals, tables, curves, the model card."""
