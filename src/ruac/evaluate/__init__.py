"""Evaluation: the masks and the uncertainty of a model on labelled data, click by click.

Pure functions of masks and pixels: metrics, error_detection, patches, object_quality, clicks, disagreement; baselines holds the
uncertainty methods. conversation plays the annotator, protocol one image, judging holds an answer against the truth. results and pool
keep a set on disk, shards lets several processes share it, clickfile tells other models the same, suite fixes what is evaluated.
bootstrap, comparison and summary average, table prints; run does all that, and command is `ruac eval`.
"""
