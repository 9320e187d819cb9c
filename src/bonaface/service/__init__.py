"""The HTTP service and its page; `app.create_app` makes it."""
