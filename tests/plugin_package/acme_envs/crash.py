"""An environment whose module cannot be imported."""

import acme_no_such_dependency  # noqa: F401
