"""The inference room: an engine client in the parent, and the model in a child process of its own."""
