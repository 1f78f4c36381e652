"""The command ``psvit-search``."""
