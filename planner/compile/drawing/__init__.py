"""Pictures of plans: a layered layout, and SVG and DOT made of it. Pure."""
