"""Who speaks in a video, and why the network thinks so."""

__version__ = "0.1.0"
