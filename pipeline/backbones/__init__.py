"""Face recognition networks, by name: the paper's six, today's, and any of timm's."""
