"""Labels in other tools' formats, there and back; what they all become in between is a `LabelSet`."""
