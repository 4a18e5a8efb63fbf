"""Objects followed through a video, with an uncertainty for every pixel and for every frame."""
