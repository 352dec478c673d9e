"""infinito: is the candidate really better, or was it a lucky seed?"""

__version__ = "0.1.0"
