"""Which forms of links a team may have, and whether they fit its members. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

LINK_FORMS = ("all", "ring", "star", "pairs", "source")


def check_links(form: str | Mapping[str, Sequence[str]] | None, ids: Sequence[str]) -> None:
    """Links that a team of these members can have.

    Raises:
        ValueError: an unknown form, or a link from or to nobody, with the members' ids.
    """
    if isinstance(form, Mapping):
        strangers = [n for who, others in form.items() for n in (who, *others) if n not in ids]
        if strangers:
            named = ", ".join(f'"{n}"' for n in dict.fromkeys(strangers))
            verb = "is not a member" if len(set(strangers)) == 1 else "are not members"
            raise ValueError(f"links: {named} {verb}. Members: {', '.join(ids)}")
    elif form is not None and form not in LINK_FORMS:
        raise ValueError(f'links: "{form}" is not one of {", ".join(LINK_FORMS)}')
