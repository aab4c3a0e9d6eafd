"""The data plane: gtun and gtund. It imports nothing else of ours and runs without the rest."""
