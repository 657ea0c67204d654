"""The runner of the Kafka interop cases: installs clients, owns the server under test, runs cases, reports."""
