"""What Celery's own tests may find different through the outbox, and the page that says so.

A test that fails plain as well is no difference.
"""

from typing import Final

#: Test, by the end of its name -> why it differs. docs/compatibility.md has the same list.
DOCUMENTED: Final[dict[str, str]] = {}
