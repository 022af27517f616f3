"""The site for WSGI servers: `gunicorn testproject.website.wsgi`."""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "testproject.website.settings")
application = get_wsgi_application()
