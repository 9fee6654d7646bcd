"""Where the store keeps its data: one interface, several engines."""
