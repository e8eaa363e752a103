"""AsyncAPI: the document that services write about themselves, and the check that holds code to it."""

from eventkit.asyncapi.changes import RULES, Change
from eventkit.asyncapi.compare import compare
from eventkit.asyncapi.document import document, documents
from eventkit.asyncapi.errors import DocumentError
from eventkit.asyncapi.misfits import misfits
from eventkit.asyncapi.pages import page
from eventkit.asyncapi.texts import to_json, to_yaml

__all__ = [
    "RULES",
    "Change",
    "DocumentError",
    "compare",
    "document",
    "documents",
    "misfits",
    "page",
    "to_json",
    "to_yaml",
]
