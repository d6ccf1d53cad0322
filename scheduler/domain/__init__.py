"""What the product is about, as values and pure functions: it knows no AWS, no HTTP, no clock of its own."""
