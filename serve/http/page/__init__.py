"""The pages for people, as static files: no build step, nothing from another host.

They run under a content security policy without inline scripts and styles, and need no API key:
the page asks for it. A `Permissions-Policy`, if one is sent, must allow `camera=(self)`.
"""
