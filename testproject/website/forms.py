"""The contact form, and the mail that it becomes."""

from django import forms
from django.conf import settings
from django.core.mail import EmailMessage


class ContactForm(forms.Form):
    name = forms.CharField(max_length=100, label="Your name")
    email = forms.EmailField(label="Your e-mail address", help_text="We answer to this address.")
    subject = forms.CharField(max_length=150)
    text = forms.CharField(max_length=5000, label="Message", widget=forms.Textarea(attrs={"rows": 8}))

    def clean_subject(self) -> str:
        # A header field has one line; Django refuses to send others.
        return " ".join(self.cleaned_data["subject"].split())

    def send(self) -> None:
        """Send what was written to the shop. Raises what mailbridge raises."""
        written = self.cleaned_data
        EmailMessage(
            subject=f"[Contact] {written['subject']}",
            body=f"{written['name']} <{written['email']}> writes:\n\n{written['text']}\n",
            to=[settings.CONTACT_INBOX],
            # Not as From: the shop's server may not send mail for the visitor's domain.
            reply_to=[written["email"]],
        ).send()
