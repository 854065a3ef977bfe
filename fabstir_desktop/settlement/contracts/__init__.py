"""One module per contract, all behind the interface in `base`."""
