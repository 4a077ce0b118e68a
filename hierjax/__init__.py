"""hierjax: classify images into a tree of labels."""

__version__ = "0.1.0"
