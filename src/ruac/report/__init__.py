"""The report: result folders of `ruac eval` in, a page for people out.

read opens the folders and finds what they have in common; scores turns it into numbers with intervals; columns puts those side by
side, findings says what they say; figures draws, examples predicts again; page puts words, tables and pictures in order; render
writes them as HTML and Markdown, numbers as CSV; ablation is another page, of variants next to a baseline; command is `ruac report`.
"""
