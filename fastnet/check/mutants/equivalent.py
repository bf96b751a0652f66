"""Changes of the reference's source that no check can see, and why: (op, change) -> reason, for `source`."""

EQUIVALENT: dict[tuple[str, str], str] = {}
