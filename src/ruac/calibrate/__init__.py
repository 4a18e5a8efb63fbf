"""Guarantees from a labelled calibration set, by the roots they grow from: `risk` chooses two thresholds whose losses are bounded in
expectation over pictures (conformal risk control), `shift` says when new pictures are not like those of the calibration, `measure`
goes through labelled pictures, `file` keeps what was found, `bounds` applies it to a prediction, `command` is `ruac calibrate`.
"""
