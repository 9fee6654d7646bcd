"""What several tests use: clients, and clusters of local processes or containers."""
