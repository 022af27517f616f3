"""The site for ASGI servers: `uvicorn testproject.website.asgi:application`."""

import os

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "testproject.website.settings")
application = get_asgi_application()
