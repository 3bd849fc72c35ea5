"""Who restores: a model of this project, or whoever made a folder of predictions."""
