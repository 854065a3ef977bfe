"""fabstir-desktop: the application of a host in the Fabstir LLM marketplace."""

__version__ = "0.1.0"
