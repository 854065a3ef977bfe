"""The only door to SQLite: schema, migrations, writer thread, queries, recovery facts."""
