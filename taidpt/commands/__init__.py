"""The click commands of this room; nothing imports them."""
