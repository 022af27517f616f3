"""Tests of mailbridge_flask, against scripted servers on loopback."""
