"""A whole worker in the test's own event loop."""
