"""The report: result folders of `ruac eval` in, a page for people out.

read opens the folders and finds what they have in common; scores and compare turn it into numbers with intervals; figures draws,
examples predicts again; page says all of it in words, tables and pictures; render writes those as HTML, Markdown and CSV; ablation
is another page, of variants next to a baseline; command is `ruac report`.
"""
