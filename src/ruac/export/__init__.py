"""Models for engines other than torch: what `ruac export` writes, and what reads it back."""
