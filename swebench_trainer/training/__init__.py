"""Training with TRL.

Read `sft.py` or `dpo.py` (with `kto.py`) from top to bottom: texts become rows of tokens
(`tokens`), a model is loaded (`models`), rows become batches (`batching`), and TRL's
trainer runs between our checks (`loop`), in one process or several (`distributed`).
"""
