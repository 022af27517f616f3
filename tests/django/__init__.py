"""Tests of mailbridge_django and of the Django site in testproject."""
