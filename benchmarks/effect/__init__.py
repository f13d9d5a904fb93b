"""The effect: does self-distillation help on the embedded model, compared with what (`__main__` says how)."""
