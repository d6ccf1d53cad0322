"""The project's own benchmark: any queue consumer against emulated AWS and an engine of known speed."""
