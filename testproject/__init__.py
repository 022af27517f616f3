"""A Django site and a Flask app that really send mail, both by the configuration in mail_settings.py."""
