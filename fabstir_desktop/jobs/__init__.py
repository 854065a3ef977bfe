"""The domain, pure Python: ids and units, accounts of jobs, claims, the checkpoint policy, events and views."""
