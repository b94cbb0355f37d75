"""espnet_lite: staged speech recipes, small encoders, few bits."""

__version__ = "0.1.0"
