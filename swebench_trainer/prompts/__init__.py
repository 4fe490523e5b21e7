"""What goes into the model and what comes out of it: styles, answers, extraction."""
