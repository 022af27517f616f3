"""The contact page: sends the mail while the visitor waits, and says so if that fails."""

import logging

from django.http import HttpResponse
from django.urls import reverse_lazy
from django.views.generic import FormView

from testproject.website.forms import ContactForm

logger = logging.getLogger(__name__)


class ContactView(FormView):
    template_name = "contact.html"
    form_class = ContactForm
    success_url = reverse_lazy("thanks")

    def form_valid(self, form: ContactForm) -> HttpResponse:
        try:
            form.send()
        except OSError as error:  # whatever a mail server or the way to it can do
            logger.warning("The contact form could not send its mail: %s", error)
            form.add_error(None, "We could not send your message just now. Please try again in a minute.")
            response = self.form_invalid(form)
            response.status_code = 503
            return response
        return super().form_valid(form)
