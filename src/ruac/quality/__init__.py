"""How good is a whole mask? Its expected IoU, calibrated by a ridge regression on a few read-outs of its pixels' probabilities.

read_outs: what is read out, and the coefficients that a model's configuration holds; ridge: how they are found; examples: what they
are found on; command: `ruac quality`.
"""
