"""The parts of benches/lazy_start.py."""
