"""What a run says at its end: rates with intervals, tables, the model card."""
