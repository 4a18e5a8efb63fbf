"""Training: settings (config), a simulated annotator (annotator), what is kept on disk (checkpoint), and the loop itself (loop)."""
