"""The real consumers of an image, started and asked from tests."""
