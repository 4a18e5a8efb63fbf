"""Evaluation: the masks and the uncertainty of a model on labelled data, click by click.

metrics (masks) and error_detection (pixels) are pure functions; protocol plays the annotator for one image; results keeps the
rows of a set on disk; summary averages them; table prints; command is `ruac eval`.
"""
