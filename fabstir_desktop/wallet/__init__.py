"""Where the key is kept, and the signer, the only holder of the key."""
