"""An embedded chain with the contracts deployed, for --demo and tests."""
