"""A small Flask app with a contact form, sending by the same configuration as the Django site.

    MAILBRIDGE_URL=smtp://127.0.0.1:1025/?security=none flask --app testproject.flask_app run
    flask --app testproject.flask_app mail verify

For this machine only. What a shop would do about spam is not shown here.
"""

from typing import Any

from flask import Flask, current_app, render_template_string, request
from flask.typing import ResponseReturnValue

from mailbridge import InvalidMessage, MailbridgeError
from mailbridge_flask import Mail, Message
from testproject import mail_settings

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>Contact</title>
<h1>Write to us</h1>
{% if problem %}<p role="alert">{{ problem }}</p>{% endif %}
{% if thanks %}<p role="status">{{ thanks }}</p>{% else %}
<form method="post">
  <p><label>Your name <input name="name" required maxlength="100" value="{{ request.form.name }}"></label></p>
  <p><label>Your e-mail address
    <input name="email" type="email" required value="{{ request.form.email }}"></label></p>
  <p><label>Subject
    <input name="subject" required maxlength="150" value="{{ request.form.subject }}"></label></p>
  <p><label>Message
    <textarea name="text" required maxlength="5000">{{ request.form.text }}</textarea></label></p>
  <p><button>Send</button></p>
</form>{% endif %}
</html>
"""
LETTER = """<p><strong>{{ name }}</strong> writes:</p>
<blockquote style="white-space: pre-line">{{ text }}</blockquote>
"""

mail = Mail()


def create_app(**config: Any) -> Flask:
    """The app; `config` wins over mail_settings.py, and FLASK_* in the environment over both."""
    app = Flask(__name__)
    app.config.from_mapping(
        {f"MAILBRIDGE_{name.upper()}": value for name, value in mail_settings.OPTIONS.items()}
    )
    app.config.from_mapping(MAILBRIDGE_DEFAULT_SENDER=mail_settings.SENDER, CONTACT_INBOX=mail_settings.INBOX)
    app.config.from_mapping(config)
    app.config.from_prefixed_env()
    mail.init_app(app)
    app.add_url_rule("/", view_func=contact, methods=["GET", "POST"])
    return app


def contact() -> ResponseReturnValue:
    """The form; what was written is sent while the visitor waits."""
    if request.method == "GET":
        return render_template_string(PAGE)
    written = {name: request.form.get(name, "").strip() for name in ("name", "email", "subject", "text")}
    if not all(written.values()):
        return render_template_string(PAGE, problem="Please fill in every field."), 400
    try:
        mail.send(letter(**written))
    except InvalidMessage:
        return render_template_string(PAGE, problem="That is no e-mail address we can answer to."), 400
    except MailbridgeError as error:
        current_app.logger.warning("The contact form could not send its mail: %s", error)
        problem = "We could not send your message just now. Please try again in a minute."
        return render_template_string(PAGE, problem=problem), 503
    return render_template_string(PAGE, thanks="Thank you. We answer soon.")


def letter(*, name: str, email: str, subject: str, text: str) -> Message:
    """The mail to the shop: the visitor is who to answer to, not who it is from."""
    return Message(
        subject=f"[Contact] {' '.join(subject.split())}",  # a header field has one line
        recipients=[current_app.config["CONTACT_INBOX"]],
        reply_to=(" ".join(name.split()), email),
        body=f"{name} writes:\n\n{text}\n",
        html=render_template_string(LETTER, name=name, text=text),
    )
