"""Tests of the test bed itself: its servers and proxies, what a missing one means, the order of the suite."""
