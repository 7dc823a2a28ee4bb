"""Labels that a teacher makes for images without any: what is labeled, how, and the folder that they are written to."""
