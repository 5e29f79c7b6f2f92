"""The web page and the REST API: methods of ``TaskRegistry`` once more, over HTTP; needs the extra ``web``."""
