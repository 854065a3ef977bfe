"""Tokens from a model: engine client (parent), worker (child process), scheduler (pure), llama.cpp binding, model files."""
