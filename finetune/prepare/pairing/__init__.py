"""Find which images and depth maps of a folder belong together."""
