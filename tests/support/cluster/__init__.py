"""Clusters as a user starts them: of local processes, of services on their own, of containers."""
