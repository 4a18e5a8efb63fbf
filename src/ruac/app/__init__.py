"""`ruac app`: a page to click on objects and to see, live, where their masks may be wrong."""
