"""The click commands of this room: options, steps, printing; nothing imports them."""
