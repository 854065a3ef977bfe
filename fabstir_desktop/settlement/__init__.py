"""The token's way to the chain: tracker, checkpoint manager, proof, outbox, fees, chain client, one module per contract."""
