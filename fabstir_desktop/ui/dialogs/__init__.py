"""Dialogs. They are opened, never run: a nested event loop inside a task would break the loop."""
