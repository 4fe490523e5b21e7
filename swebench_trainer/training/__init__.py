"""The TRL backend: models, SFT, DPO, the token audit and the learning guards."""
