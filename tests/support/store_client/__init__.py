"""Links and feeds of a store client, fed by the test's hand."""
