"""The pages: a contact form, and of Django's account pages those for login and password reset."""

from django.urls import include, path
from django.views.generic import TemplateView

from testproject.website.views import ContactView

urlpatterns = [
    path("", ContactView.as_view(), name="contact"),
    path("thanks/", TemplateView.as_view(template_name="thanks.html"), name="thanks"),
    path("account/", include("django.contrib.auth.urls")),
]
