"""How good is a whole mask? Its expected IoU, calibrated on labelled pictures.

expected: what a mask's logits say of it, and the line through that which a model's configuration holds; fit: how the line is found;
examples: what it is found on; command: `ruac quality`.
"""
