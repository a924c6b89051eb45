"""The machine of a team: members, rounds in which they hear each other, the judge."""
